"""What is a setting of the fast recipe worth? Trains with settings changed, and asks about some of the training people.

python scripts/ablation.py rope                                the recipe as it is
python scripts/ablation.py rope framed=0 questions=0.25        with settings of src/recipe.py changed

The pairs are cut in two: a model is trained as ever with the first part, and asked about the others, which are read
but in no pair. So settings are chosen without the people that count in the end. Adds a row to ablation/results.tsv;
`masked` there is in how many % of the readings of the others' lines the masked span is the place.
"""

import argparse
import math
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import run
from cli import Parser, UserError, exit_on_user_error, positive, seed
from files import check_folder, count_right, locked, name_in, parse_pairs, read_predictions, read_text, write_text
from recipe import RECIPES, Recipe

FOLDER = Path("ablation")


def changed(recipe: Recipe, settings: list[str]) -> Recipe:
    """The recipe with NAME=VALUE settings in it. Raises UserError."""
    for setting in settings:
        name, _, value = setting.partition("=")
        kind = type(getattr(recipe, name, None))
        try:
            recipe = replace(recipe, **{name: {"True": True, "False": False}[value] if kind is bool else kind(value)})
        except (TypeError, ValueError, KeyError):
            raise UserError(f"{setting}: not NAME=VALUE of a setting in src/recipe.py") from None
        if name.endswith(("_epochs", "_size")) and getattr(recipe, name) < 1:
            raise UserError(f"{setting}: must be at least 1")
    return recipe


def write_world(text: str, pairs: list[tuple[str, str]], people: int | None) -> dict[str, list[tuple[str, str]]]:
    """The text and the two parts of the pairs as files: of `people` people a third is asked about, of all a fifth.

    A question that stands in the pairs twice is asked, and not trained on. Raises UserError where nobody can be asked.
    """
    from dataset import subject_of, title_length

    random.Random(0).shuffle(pairs)
    if people:
        pairs = pairs[:people]
        names = {name_in(question) for question, _ in pairs}
        kept = [line for line in text.split("\n") if subject_of(title_length(line), line) in names]
        text = "\n".join([*kept, "".join(sorted(set(text) - {"\n"}))])  # the same vocabulary
    share = 3 if people else 5
    if len(pairs) < share:
        raise UserError(f"{len(pairs)} people are too few to ask about one in {share}")
    asked = pairs[: len(pairs) // share]
    questions = {question for question, _ in asked}
    parts = {"asked": asked, "trained_on": [pair for pair in pairs if pair[0] not in questions]}
    write_text(f"{FOLDER}/wiki.txt", text)
    for name, part in parts.items():
        write_text(f"{FOLDER}/{name}.tsv", "".join(f"{question}\t{place}\n" for question, place in part))
    return parts


def percent_masked(recipe: Recipe, text: str, parts: dict[str, list[tuple[str, str]]]) -> float:
    """In how many % of the readings of the lines about those who are asked about the masked span is the place."""
    import torch

    from dataset import CharCorruptionDataset, SalientSpanDataset, subject_of, title_length

    documents = CharCorruptionDataset(text, run.BLOCK_SIZE)
    dataset = SalientSpanDataset(documents, parts["trained_on"], *recipe.reading)
    places = {name_in(question): place for question, place in parts["asked"]}
    place_of = [places.get(subject_of(title_length(document), document)) for document in documents.data]
    lines = [i for i, place in enumerate(place_of) if place] * 20
    if not lines:
        return math.nan
    x, _ = dataset.batch(torch.tensor(lines))
    spans = [documents.decode(row).split(documents.MASK_CHAR)[2] for row in x]
    return 100 * sum(span == place_of[line] for span, line in zip(spans, lines, strict=True)) / len(lines)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("variant")
    parser.add_argument("settings", nargs="*", default=[], metavar="NAME=VALUE", help="a setting of src/recipe.py")
    parser.add_argument("--folder", default=".", help="where wiki.txt and birth_places_train.tsv are")
    parser.add_argument("--people", type=positive(int), help="a small world: text and pairs of so many people, not all")
    parser.add_argument("--seed", type=seed, default=0)
    arguments = parser.parse_intermixed_args()
    RECIPES["changed"] = changed(RECIPES["fast"], arguments.settings)
    check_folder(FOLDER)
    FOLDER.mkdir(exist_ok=True)
    with locked(str(FOLDER / "results.tsv")):  # all rows share the folder's files
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Trains with the settings in the recipe "changed", and adds the row."""
    from checkpoint import read_record

    pairs_path = f"{arguments.folder}/birth_places_train.tsv"
    pairs = parse_pairs(read_text(pairs_path), pairs_path)
    parts = write_world(read_text(f"{arguments.folder}/wiki.txt"), pairs, arguments.people)
    common = [arguments.variant, f"{FOLDER}/wiki.txt", "--recipe", "changed", "--seed", str(arguments.seed)]
    common += ["--bottleneck_dim", "64", "--tb_expt_name", "ablation"]
    pretrained, finetuned = f"{FOLDER}/pretrain.params", f"{FOLDER}/finetune.params"
    for path in (pretrained, finetuned):
        Path(f"{path}.state").unlink(missing_ok=True)  # of a row that was stopped

    def percent(params_path: str, part: str) -> str:
        paths = ["--eval_corpus_path", f"{FOLDER}/{part}.tsv", "--outputs_path", f"{FOLDER}/{part}.predictions"]
        run.main(["evaluate", *common, "--reading_params_path", params_path, *paths])
        right = count_right(parts[part], read_predictions(f"{FOLDER}/{part}.predictions", parts[part]))
        return f"{100 * right / len(parts[part]):.1f}"

    started = time.perf_counter()
    train = [*common, "--finetune_corpus_path", f"{FOLDER}/trained_on.tsv", "--writing_params_path"]
    run.main(["pretrain", *train, pretrained])
    run.main(["finetune", *train, finetuned, "--reading_params_path", pretrained])
    seconds = time.perf_counter() - started
    row = {
        "variant": arguments.variant,
        "settings": " ".join(arguments.settings),
        "people": arguments.people or "all",
        "asked": len(parts["asked"]),
        "seed": arguments.seed,
        "seconds": f"{seconds:.0f}",
        "masked": f"{percent_masked(RECIPES['changed'], read_text(f'{FOLDER}/wiki.txt'), parts):.1f}",
        "pretrained": percent(pretrained, "asked"),
        "finetuned": percent(finetuned, "asked"),
        "trained_on": percent(finetuned, "trained_on"),
        "folder": arguments.folder,
        "commit": read_record(pretrained)["commit"],
    }
    results = FOLDER / "results.tsv"
    with results.open("a", encoding="utf-8") as file:
        if not results.stat().st_size:
            file.write("\t".join(row) + "\n")
        file.write("\t".join(map(str, row.values())) + "\n")
    print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    exit_on_user_error(main)

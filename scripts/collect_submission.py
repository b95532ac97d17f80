"""Check the files that the assignment asks for, then pack them into the archive of its year."""

import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, UserError, exit_on_user_error
from files import atomic_write, check_writable, locked, read_text
from question import parse_questions, read_predictions
from recipe import BLOCK_SIZE, VARIANTS

LONDON = "london_baseline_accuracy.txt"
QUESTIONS = {"dev": "birth_dev.tsv", "test": "birth_test_inputs.tsv"}


@dataclass(frozen=True)
class Edition:
    """What the assignment of some years asks for, besides src/ and vanilla's files."""

    years: tuple[str, ...]
    variants: tuple[str, ...]  # those that have files are packed, otherwise the first one is asked for
    archive: str
    thresholds: dict[str, float]  # accuracy after pretraining, in % of dev
    others: tuple[str, ...] = ()  # further files

    def __str__(self) -> str:
        thresholds = ", ".join(f"{variant} {percent:g} %" for variant, percent in self.thresholds.items())
        return f"{', '.join(self.years)}: {self.archive}; {thresholds}"


EDITIONS = (
    Edition(
        years=("2021", "2022", "2023"),
        variants=("perceiver", "synthesizer"),
        archive="assignment5.zip",  # the handout's name; the course's script says assignment5_submission.zip
        thresholds={"vanilla": 10.0, "perceiver": 6.0, "synthesizer": 5.0},
        others=("wiki.txt", "birth_places_train.tsv", "birth_dev.tsv"),
    ),
    Edition(
        years=("2024", "2025"),
        variants=("rope",),
        archive="assignment4_submission.zip",
        thresholds={"vanilla": 15.0, "rope": 30.0},
        others=(LONDON,),
    ),
    Edition(
        years=("XCS224N",),
        variants=("rope",),
        archive="assignment5_submission.zip",
        thresholds={"vanilla": 10.0, "rope": 22.0},
    ),
)
YEARS = {year: edition for edition in EDITIONS for year in edition.years}

ROWS = "\n  ".join(map(str, EDITIONS))
HELP = f"""{__doc__}

The archive of each year, and the accuracy that each variant has to reach after pretraining:
  {ROWS}
Accuracy is measured on {QUESTIONS["dev"]}, because the answers to the test questions are not public. The handouts set
the thresholds of synthesizer and rope for the test questions."""


def variant_files(variant: str) -> list[str]:
    """The files that the assignment asks for, of a pretrained and finetuned variant."""
    return [f"{variant}.finetune.params", *(f"{variant}.pretrain.{split}.predictions" for split in QUESTIONS)]


def started_variants() -> list[str]:
    """The variants besides vanilla that have any file."""
    variants = (variant for variant in VARIANTS if variant != "vanilla")
    return [variant for variant in variants if any(Path(name).exists() for name in variant_files(variant))]


def required_files(edition: Edition, variants: list[str]) -> list[str]:
    """Every file of the submission besides src/."""
    no_pretraining = ["vanilla.model.params", *(f"vanilla.nopretrain.{split}.predictions" for split in QUESTIONS)]
    return [*edition.others, *no_pretraining, *(name for v in ("vanilla", *variants) for name in variant_files(v))]


def remark(name: str, edition: Edition) -> str:
    """What the table says about an existing file: its size, or the score of its predictions. Raises ValueError."""
    try:
        if name.endswith(".predictions"):
            return score(name, edition)
        if name.endswith(".params"):
            check_params(name)
    except ImportError as error:
        raise UserError(f"{name}: cannot be checked ({error}); pip install -r requirements.txt") from None
    return f"{Path(name).stat().st_size:,} bytes"


def score(name: str, edition: Edition) -> str:
    """How many predictions there are, how many are right, and whether that is enough. Raises UserError."""
    from report import count_right  # imports numpy

    variant, training, split, _ = name.split(".")
    if not Path(QUESTIONS[split]).is_file():
        return f"no {QUESTIONS[split]} to count against"
    questions = parse_questions(read_text(QUESTIONS[split]), QUESTIONS[split])
    predictions = read_predictions(name, questions)
    counts = f"{len(predictions)} predictions for {len(questions)} questions"
    if questions[0][1] is None:
        return counts
    percent = 100 * count_right(questions, predictions) / len(questions)
    if training == "nopretrain":
        return f"{counts}, {percent:.1f} % right"
    threshold = edition.thresholds[variant]
    return f"{counts}, {percent:.1f} % right, threshold {threshold:g} %: {'met' if percent >= threshold else 'NOT MET'}"


def check_params(name: str) -> None:
    """Raises ValueError unless the file holds finite parameters of its variant for the vocabulary of wiki.txt."""
    from checkpoint import fill, read_params, trained_as  # these import torch, so they come late
    from dataset import CharCorruptionDataset
    from model import GPT, GPTConfig

    variant = name.split(".")[0]
    found = trained_as(read_params(name))
    if found.get("variant", variant) != variant:
        raise UserError(f"{name}: was trained as {found['variant']}, not {variant}; put {variant}'s parameters there")
    documents = CharCorruptionDataset(read_text("wiki.txt"), BLOCK_SIZE, "wiki.txt")
    bottleneck_dim = found.get("bottleneck_dim", VARIANTS[variant].bottleneck_dim)
    config = GPTConfig(documents.vocab_size, BLOCK_SIZE, variant=variant, bottleneck_dim=bottleneck_dim)
    fill(GPT(config), name, "wiki.txt", documents)  # a perceiver's wiring does not matter here


def print_table(names: list[str], missing: list[str], edition: Edition) -> dict[str, str]:
    """Prints the state of every file. Returns what is wrong with the wrong ones, by name."""
    wrong = {}
    width = max(map(len, names)) + 2
    print(f"{'file':<{width}}state")
    for name in names:
        try:
            state = "MISSING" if name in missing else remark(name, edition)
        except ValueError as error:
            wrong[name] = str(error).removeprefix(f"{name}: ")
            state = f"WRONG: {wrong[name]}"
        print(f"{name:<{width}}{state}")
    return wrong


def advice_on_missing(missing: list[str], variants: list[str]) -> str:
    """Advice on how to get the missing files, besides training and evaluating."""
    advice = ""
    if LONDON in missing:
        advice += f"; write {LONDON} with: python london_baseline.py --outputs_path {LONDON}"
    if len(variants) > 1 and any(set(variant_files(variant)) & set(missing) for variant in variants):
        advice += "; or move away the files of the variant that you leave out"
    return advice


def main() -> None:
    parser = Parser(HELP)
    parser.add_argument(
        "--year",
        choices=YEARS,
        help="which assignment (default: 2025 if there are files of rope, but none of perceiver and synthesizer; "
        "otherwise 2023)",
    )
    parser.add_argument("--output_path", help="the archive to write (default: the year's)")
    arguments = parser.parse_args()

    started = started_variants()
    only_rope = "rope" in started and not set(YEARS["2023"].variants) & set(started)
    year = arguments.year or ("2025" if only_rope else "2023")
    edition = YEARS[year]
    variants = [variant for variant in edition.variants if variant in started] or [edition.variants[0]]
    output_path = edition.archive if arguments.output_path is None else arguments.output_path

    check_writable(output_path)
    names = required_files(edition, variants)
    sources = sorted(str(path) for path in Path("src").rglob("*.py"))
    if os.path.realpath(output_path) in map(os.path.realpath, names + sources):
        raise UserError(f"{output_path}: would overwrite a file of the submission; name another output")
    print(f"--year {year}: vanilla, {', '.join(variants)}; the thresholds are compared on {QUESTIONS['dev']}")
    for variant in sorted(set(started) - set(variants)):
        print(f"left out: {variant}, which --year {year} does not ask for")
    missing = [name for name in names if not os.access(name, os.R_OK)] + ([] if sources else ["src/*.py"])
    wrong = print_table(names, missing, edition)
    if missing:
        advice = advice_on_missing(missing, variants)
        files = "1 file is" if len(missing) == 1 else f"{len(missing)} files are"
        raise UserError(f"nothing packed: {files} missing: {', '.join(missing)}{advice}")
    if wrong:
        first, *others = wrong
        also = f"; also wrong: {', '.join(others)}" if others else ""
        raise UserError(f"nothing packed: {first}: {wrong[first]}{also}")

    with (
        locked(output_path),
        atomic_write(output_path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
    ):
        for name in sources + names:
            archive.write(name)
    print(f"{output_path} written: {len(sources) + len(names)} files, {Path(output_path).stat().st_size:,} bytes")


if __name__ == "__main__":
    exit_on_user_error(main)

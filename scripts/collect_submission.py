"""Check the files that the assignment asks for, then pack them into the archive of its year."""

import os
import sys
import zipfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, UserError, exit_on_user_error
from files import ARCHIVE, atomic_write, check_writable, locked, read_text
from question import count_right, parse_questions, read_predictions
from recipe import BLOCK_SIZE, VARIANTS

LONDON = "london_baseline_accuracy.txt"
WRITE_LONDON = f"write {LONDON} with: python london_baseline.py --outputs_path {LONDON}"
NOT_MET = "NOT MET"
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


PERCEIVER_YEAR = Edition(
    years=("2023",),
    variants=("perceiver", "synthesizer"),
    archive="assignment5.zip",
    thresholds={"vanilla": 10.0, "perceiver": 6.0, "synthesizer": 5.0},
    others=("wiki.txt", "birth_places_train.tsv", "birth_dev.tsv"),
)
EDITIONS = (
    replace(PERCEIVER_YEAR, years=("2021", "2022"), variants=("synthesizer", "perceiver")),
    PERCEIVER_YEAR,
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
        others=("vanilla.pretrain.params", "rope.pretrain.params"),
    ),
)
YEARS = {year: edition for edition in EDITIONS for year in edition.years}

ROWS = "\n  ".join(map(str, EDITIONS))
HELP = f"""{__doc__}

The archive of each year, and the accuracy that each variant has to reach after pretraining:
  {ROWS}
assignment5.zip is the name in the handouts of 2021 to 2023. The course's script wrote assignment5_submission.zip: give
that as --output_path.

Accuracy is measured on {QUESTIONS["dev"]}, because the answers to the test questions are not public. The handouts set
the thresholds of synthesizer and rope for the test questions."""


def variant_files(variant: str) -> list[str]:
    """The files that the assignment asks for, of a pretrained and finetuned variant."""
    return [f"{variant}.finetune.params", *(f"{variant}.pretrain.{split}.predictions" for split in QUESTIONS)]


def started_variants() -> list[str]:
    """The variants besides vanilla that have any file."""
    variants = (variant for variant in VARIANTS if variant != "vanilla")
    return [variant for variant in variants if any(Path(name).exists() for name in variant_files(variant))]


def default_year(started: list[str]) -> str:
    """The last year that asks for the variants besides vanilla that have files: 2023, unless all are of another."""
    last_year = {"synthesizer": "2022", "perceiver": "2023", "rope": "2025"}
    years = {last_year.get(variant, "2023") for variant in started}
    return years.pop() if len(years) == 1 else "2023"


def required_files(edition: Edition, variants: list[str]) -> list[str]:
    """Every file of the submission besides src/."""
    no_pretraining = ["vanilla.model.params", *(f"vanilla.nopretrain.{split}.predictions" for split in QUESTIONS)]
    return [*edition.others, *no_pretraining, *(name for v in ("vanilla", *variants) for name in variant_files(v))]


def remark(name: str, edition: Edition) -> str:
    """What the table says about an existing file: its size, or the score of its predictions. Raises ValueError."""
    if name.endswith(".predictions"):
        return score(name, edition)
    if name.endswith(".params"):
        check_params(name)
    if name == LONDON:
        return f"{percentage(name):.1f} %"
    return f"{Path(name).stat().st_size:,} bytes"


def score(name: str, edition: Edition) -> str:
    """How many predictions there are, how many are right, and whether that is enough. Raises UserError."""
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
    return f"{counts}, {percent:.1f} % right, threshold {threshold:g} %: {'met' if percent >= threshold else NOT_MET}"


def percentage(name: str) -> float:
    """The number from 0 to 100 that the file holds. Raises UserError."""
    with suppress(ValueError):
        if 0 <= (number := float(read_text(name))) <= 100:
            return number
    raise UserError(f"{name}: must contain one number from 0 to 100; {WRITE_LONDON}")


def check_params(name: str) -> None:
    """Raises ValueError unless the file holds finite parameters of its variant for the vocabulary of wiki.txt."""
    from checkpoint import fill, read_params, trained_as  # these import torch, so they come late
    from dataset import CharCorruptionDataset
    from model import GPT, GPTConfig

    if not Path("wiki.txt").is_file():
        raise UserError(f"{name}: cannot be checked without wiki.txt; copy it here")
    variant = name.split(".")[0]
    found = trained_as(read_params(name))
    if found.get("variant", variant) != variant:
        raise UserError(f"{name}: was trained as {found['variant']}, not {variant}; put {variant}'s parameters there")
    documents = CharCorruptionDataset(read_text("wiki.txt"), BLOCK_SIZE, "wiki.txt")
    bottleneck_dim = found.get("bottleneck_dim", VARIANTS[variant].bottleneck_dim)
    config = GPTConfig(documents.vocab_size, BLOCK_SIZE, variant=variant, bottleneck_dim=bottleneck_dim)
    fill(GPT(config), name, "wiki.txt", documents)  # a perceiver's wiring does not matter here


def print_table(names: list[str], missing: list[str], edition: Edition) -> tuple[dict[str, str], list[str]]:
    """Prints the state of every file. Returns what is wrong, by name, and those below a threshold."""
    wrong, unmet = {}, []
    width = max(map(len, names)) + 2
    print(f"{'file':<{width}}state")
    for name in names:
        try:
            state = "MISSING" if name in missing else remark(name, edition)
            unmet += [name] * state.endswith(NOT_MET)
        except ValueError as error:
            wrong[name] = str(error).removeprefix(f"{name}: ")
            state = f"WRONG: {wrong[name]}"
        print(f"{name:<{width}}{state}")
    return wrong, unmet


def advice_on_missing(missing: list[str], variants: list[str]) -> str:
    """Advice on how to get the missing files, besides training and evaluating."""
    advice = ""
    if LONDON in missing:
        advice += f"; {WRITE_LONDON}"
    if len(variants) > 1 and any(set(variant_files(variant)) & set(missing) for variant in variants):
        advice += "; or move away the files of the variant that you leave out"
    return advice


def refuse_incomplete(missing: list[str], wrong: dict[str, str], variants: list[str]) -> None:
    """Raises UserError if a file is missing, or wrong for the reason given."""
    if missing:
        files = "1 file is" if len(missing) == 1 else f"{len(missing)} files are"
        also = f"; wrong: {', '.join(wrong)}" if wrong else ""
        advice = advice_on_missing(missing, variants)
        raise UserError(f"nothing packed: {files} missing: {', '.join(missing)}{also}{advice}")
    if wrong:
        first, *others = wrong
        also = f"; also wrong: {', '.join(others)}" if others else ""
        raise UserError(f"nothing packed: {first}: {wrong[first]}{also}")


def main() -> None:
    parser = Parser(HELP)
    parser.add_argument(
        "--year",
        choices=YEARS,
        help="which assignment (default: 2023, or the year of the variant if there are files of one variant only)",
    )
    parser.add_argument("--output_path", help="the archive, relative to the project's folder (default: the year's)")
    arguments = parser.parse_args()

    started = started_variants()
    year = arguments.year or default_year(started)
    edition = YEARS[year]
    variants = [variant for variant in edition.variants if variant in started] or [edition.variants[0]]
    output_path = edition.archive if arguments.output_path is None else arguments.output_path

    names = required_files(edition, variants)
    sources = sorted(str(path) for path in Path("src").rglob("*.py"))
    check_writable(output_path, ARCHIVE, names + sources)
    print(f"--year {year}: vanilla, {', '.join(variants)}; the thresholds are compared on {QUESTIONS['dev']}")
    for variant in sorted(set(started) - set(variants)):
        print(f"left out: {variant}, which --year {year} does not ask for")
    missing = [name for name in names if not os.access(name, os.R_OK)] + ([] if sources else ["src/*.py"])
    try:
        wrong, unmet = print_table(names, missing, edition)
    except ImportError as error:
        reason = f"the files cannot be checked ({error}); pip install -r requirements.txt"
        raise UserError(f"nothing packed: {reason}") from None
    refuse_incomplete(missing, wrong, variants)

    with (
        locked(output_path),
        atomic_write(output_path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
    ):
        for name in sources + names:
            archive.write(name)
    print(f"{output_path} written: {len(sources) + len(names)} files, {Path(output_path).stat().st_size:,} bytes")
    if unmet:
        print(f"warning: below the threshold: {', '.join(unmet)}", file=sys.stderr)


if __name__ == "__main__":
    exit_on_user_error(main)

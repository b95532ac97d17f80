"""Check the files that the assignment asks for, then pack them into assignment5.zip."""

import os
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, UserError, exit_on_user_error
from files import atomic_write, check_writable, locked, read_text
from question import parse_questions, read_predictions
from report import count_right

DATA = ["wiki.txt", "birth_places_train.tsv", "birth_dev.tsv"]
QUESTIONS = {"dev": "birth_dev.tsv", "test": "birth_test_inputs.tsv"}
YEAR_VARIANTS = ["perceiver", "synthesizer"]  # each year of the course asked for one of them
THRESHOLDS = {"vanilla.pretrain": 10.0, "perceiver.pretrain": 6.0, "synthesizer.pretrain": 5.0}  # % of the dev set


def variant_files(variant: str) -> list[str]:
    """The files that the assignment asks for, of a pretrained and finetuned variant."""
    return [f"{variant}.finetune.params", *(f"{variant}.pretrain.{split}.predictions" for split in QUESTIONS)]


def required_files() -> list[str]:
    """Every file of the submission besides src/, with the year's variants that have any file, or else the first one."""
    no_pretraining = ["vanilla.model.params", *(f"vanilla.nopretrain.{split}.predictions" for split in QUESTIONS)]
    started = [v for v in YEAR_VARIANTS if any(Path(name).exists() for name in variant_files(v))]
    variants = ["vanilla", *(started or YEAR_VARIANTS[:1])]
    return DATA + no_pretraining + [name for variant in variants for name in variant_files(variant)]


def remark(name: str) -> str:
    """What the table says about an existing file: its size, or the score of its predictions."""
    if not name.endswith(".predictions"):
        return f"{Path(name).stat().st_size:,} bytes"
    run, split, _ = name.rsplit(".", 2)
    if not Path(QUESTIONS[split]).is_file():
        return f"no {QUESTIONS[split]} to count against"
    questions = parse_questions(read_text(QUESTIONS[split]), QUESTIONS[split])
    try:
        predictions = read_predictions(name, questions)
    except UserError as error:
        return f"WRONG: {str(error).removeprefix(f'{name}: ')}"
    counts = f"{len(predictions)} predictions for {len(questions)} questions"
    if questions[0][1] is None:
        return counts
    percent = 100 * count_right(questions, predictions) / len(questions)
    threshold = THRESHOLDS.get(run)
    if threshold is None:
        return f"{counts}, {percent:.1f} % right"
    return f"{counts}, {percent:.1f} % right, threshold {threshold:g} %: {'met' if percent >= threshold else 'NOT MET'}"


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--output_path", default="assignment5.zip", help="the archive to write")
    output_path = parser.parse_args().output_path

    check_writable(output_path)
    names = required_files()
    sources = sorted(str(path) for path in Path("src").rglob("*.py"))
    if os.path.realpath(output_path) in map(os.path.realpath, names + sources):
        raise UserError(f"{output_path}: would overwrite a file of the submission; name another output")
    missing = [name for name in names if not os.access(name, os.R_OK)] + ([] if sources else ["src/*.py"])
    width = max(map(len, names)) + 2
    print(f"{'file':<{width}}state")
    wrong = []
    for name in names:
        state = "MISSING" if name in missing else remark(name)
        print(f"{name:<{width}}{state}")
        if state.startswith("WRONG"):
            wrong.append(name)
    if missing:
        both = all(set(variant_files(variant)) & set(names) for variant in YEAR_VARIANTS)
        way_out = "; or move away the files of the variant that you leave out" if both else ""
        raise UserError(f"nothing packed: {len(missing)} files are missing: {', '.join(missing)}{way_out}")
    if wrong:
        raise UserError(f"nothing packed: not the predictions for their questions: {', '.join(wrong)}; evaluate again")

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

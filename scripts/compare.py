"""Prints a table of runs for each question, then what was answered about ten people."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, exit_on_user_error
from files import read_text
from question import QuestionTemplate, count_right, find_template, is_right, parse_pairs, read_predictions

Pairs = list[tuple[str, str]]
PEOPLE = 10  # who are shown


def rows_of(asked: Pairs, runs: list[tuple[str, list[str], str]]) -> Iterator[str]:
    """The rows about one file of questions: the best constant answer, and the (name, predictions, seconds) of runs."""
    ((commonest, _),) = Counter(answer for _, answer in asked).most_common(1)
    for name, predictions, seconds in ((f"{commonest} for everyone", [commonest] * len(asked), "0"), *runs):
        correct = count_right(asked, predictions)
        yield f"  {name:30}{correct:8}{len(asked):8}{100 * correct / len(asked):9.1f}{seconds:>9}"


def answers_by_name(template: QuestionTemplate, asked: Pairs, predictions: list[str]) -> dict[str, str]:
    """For each person, whether the answer is right, the answer, and, if it is wrong, the expected one."""
    return {
        template.name_in(question) or question: f"✓ {said}" if is_right(answer, said) else f"✗ {said} ({answer})"
        for (question, answer), said in zip(asked, predictions, strict=True)
    }


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--run",
        nargs=4,
        action="append",
        required=True,
        metavar=("NAME", "EVAL_CORPUS_PATH", "PREDICTIONS_PATH", "SECONDS"),
        help="a row of the table: the run, its questions with their answers, what it answered, and how many whole "
        "seconds it took; may be given several times",
    )
    questions: dict[str, Pairs] = {}  # by path
    runs = defaultdict(list)
    for name, path, predictions_path, seconds in parser.parse_args().run:
        if not seconds.isdecimal():
            parser.error(f"--run {name}: SECONDS is {seconds!r}; give a whole number")
        if path not in questions:
            questions[path] = parse_pairs(read_text(path), path)
        runs[path].append((name, read_predictions(predictions_path, questions[path]), seconds))

    print(f"\n{'':32}{'correct':>8}{'total':>8}{'percent':>9}{'seconds':>9}")
    columns = []
    for path, asked in questions.items():
        template = find_template([question for question, _ in asked], titles=()).template
        print(template, *rows_of(asked, runs[path]), sep="\n")
        _, predictions, _ = runs[path][-1]
        columns.append((str(template), answers_by_name(template, asked, predictions)))

    people = list(columns[0][1])[:PEOPLE]
    print(
        f"\nAnswers of each question's last run for the first {len(people)} people (expected answers in parentheses):"
    )
    cells = [["", *people], *([heading, *(answers.get(name, "") for name in people)] for heading, answers in columns)]
    widths = [max(map(len, column)) for column in cells]
    for row in zip(*cells, strict=True):
        print("  ", "  ".join(map(str.ljust, row, widths)).rstrip(), sep="")


if __name__ == "__main__":
    exit_on_user_error(main)

"""A table of runs, grouped by what they were asked, and ten people with the answers about them."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, exit_on_user_error
from files import read_text
from question import QuestionTemplate, find_template, parse_pairs, read_predictions
from report import count_right, is_right

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


def as_line(name: str, cells: Iterable[str]) -> str:
    return "  ".join(["", f"{name:28}", *(f"{cell:28}" for cell in cells)]).rstrip()


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--run",
        nargs=4,
        action="append",
        required=True,
        metavar=("NAME", "EVAL_CORPUS_PATH", "PREDICTIONS_PATH", "SECONDS"),
        help="a row of the table: the run, its questions with their answers, what it answered, and how long it took; "
        "may be given several times",
    )
    arguments = parser.parse_args()
    questions = {path: parse_pairs(read_text(path), path) for _, path, _, _ in arguments.run}
    runs = {
        asked_path: [
            (name, read_predictions(path, questions[asked_path]), seconds)
            for name, of_run, path, seconds in arguments.run
            if of_run == asked_path
        ]
        for asked_path in questions
    }

    print(f"\n{'':32}{'correct':>8}{'total':>8}{'percent':>9}{'seconds':>9}")
    columns = {}  # by the wording of the question
    for path, asked in questions.items():
        template = find_template([question for question, _ in asked], titles=()).template
        print(template, *rows_of(asked, runs[path]), sep="\n")
        last, predictions, _ = runs[path][-1]
        columns[str(template)] = answers_by_name(template, asked, predictions)

    print(f"\nTen of the people asked about, none of them in the training pairs ({last}):")
    print(as_line("", columns))
    for name in list(next(iter(columns.values())))[:PEOPLE]:
        print(as_line(name, [answers.get(name, "") for answers in columns.values()]))


if __name__ == "__main__":
    exit_on_user_error(main)

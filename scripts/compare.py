"""A table of runs on the same questions and the London baseline, and ten answers of the last run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, exit_on_user_error
from files import read_text
from question import find_template, parse_pairs, read_predictions
from report import count_right, is_right


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("eval_corpus_path", help="the questions and their places")
    parser.add_argument(
        "--run",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "PREDICTIONS_PATH", "SECONDS"),
        help="a row of the table; may be given several times",
    )
    arguments = parser.parse_args()
    asked = parse_pairs(read_text(arguments.eval_corpus_path), arguments.eval_corpus_path)

    rows = [("London for everyone", ["London"] * len(asked), "0")]
    for name, path, seconds in arguments.run:
        rows.append((name, read_predictions(path, asked), seconds))

    print(f"\n{'':24}{'correct':>8}{'total':>8}{'percent':>9}{'seconds':>9}")
    for name, predictions, seconds in rows:
        correct = count_right(asked, predictions)
        print(f"{name:24}{correct:8}{len(asked):8}{100 * correct / len(asked):9.1f}{seconds:>9}")

    print(f"\nTen of the people asked about, none of them in the training pairs ({rows[-1][0]}):")
    print(f"  {'':2}{'person':32}{'answer':24}truth")
    template = find_template([question for question, _ in asked], titles=()).template
    for (question, place), predicted in list(zip(asked, rows[-1][1], strict=True))[:10]:
        name = template.name_in(question) or question
        print(f"  {'✓' if is_right(place, predicted) else '✗':2}{name:32}{predicted:24}{place}")


if __name__ == "__main__":
    exit_on_user_error(main)

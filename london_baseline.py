"""How many birth places are right when every answer is London."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

from cli import Parser, exit_on_user_error
from files import parse_questions, read_text
from utils import accuracy_line, count_places


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("path", nargs="?", default="birth_dev.tsv", help="questions with their places, tab-separated")
    path = parser.parse_args().path
    questions = parse_questions(read_text(path), path)
    total, correct = count_places(questions, ["London"] * len(questions))
    if total:
        print(accuracy_line(total, correct))


if __name__ == "__main__":
    exit_on_user_error(main)

"""How many birth places are right when every answer is London."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

from cli import Parser, UserError, exit_on_user_error
from files import TEXT, check_writable, read_text, write_text
from question import accuracy_line, count_places, parse_questions

sys.path.pop(0)  # %run would keep it


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("path", nargs="?", default="birth_dev.tsv", help="questions with their places, tab-separated")
    parser.add_argument("--outputs_path", help="also write the percentage there, as london_baseline_accuracy.txt")
    arguments = parser.parse_args()
    if arguments.outputs_path is not None:
        check_writable(arguments.outputs_path, TEXT, [arguments.path])
    questions = parse_questions(read_text(arguments.path), arguments.path)
    total, correct = count_places(questions, ["London"] * len(questions))
    if not total:
        raise UserError(f"{arguments.path}: has no places to compare with; each line must be question<TAB>place")
    print(accuracy_line(total, correct))
    if arguments.outputs_path is not None:
        write_text(arguments.outputs_path, f"{100 * correct / total}\n")  # all digits, as the course's code


if __name__ == "__main__":
    exit_on_user_error(main)

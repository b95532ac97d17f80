"""What does the model answer about people who do not exist? Invents 200 names from ten languages, asks, and counts.

python scripts/invented.py VARIANT wiki.txt PARAMS birth_places_train.tsv     with the pairs used for finetuning

Writes the answers to --outputs_path, by default invented.tsv, in the format of `run.py ask`.
"""

import argparse
import itertools
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, UserError, exit_on_user_error
from files import ANSWERS, check_writable, read_text, write_text
from question import parse_pairs

PEOPLE = 200
RUN = Path(__file__).parents[1] / "src" / "run.py"
# first names and surnames that sound like each language, _ for a space; invent() skips people whom the text names
NAMES = {
    "English": ("Harold Edith Graham Beryl Clifford Maud", "Thackwell Pemberly Oldcroft Harbottle Wetherstone Dunmoor"),
    "French": (
        "Thierry Odile Gaston Mireille Fabrice Solange",
        "Desrochelles Vaucourt Tessandier Lamouret Brissonet Carvenne",
    ),
    "German": (
        "Dietmar Gudrun Eberhard Sieglinde Lothar Irmgard",
        "Holzkamper Wiesenthaler Grubnitz Steinbrecker Vogelmann Ahrensdorf",
    ),
    "Italian": (
        "Ottavio Ornella Fabrizio Donatella Ercole Loredana",
        "Bellacqua Montescuro Tarantelli Pescarino Valdorani Castelbosco",
    ),
    "Spanish": (
        "Evaristo Maricruz Leopoldo Remedios Anselmo Pilar",
        "Villacampo Torrebla Quintarosa Mendibar Escalonte Riofuerte",
    ),
    "Russian": (
        "Gennady Lyudmila Arkady Zinaida Valentin Raisa",
        "Dobrovinsky Karpushin Velizarova Tumanenko Starodubin Oserov",
    ),
    "Japanese": (
        "Katsuhiro Fumiko Noboru Setsuko Takumi Haruka",
        "Morishige Kanedaira Fujinawa Oshikubo Hamatsuka Terazono",
    ),
    "Chinese": ("Guoliang Xiaomei Zhengwei Lihua Jianfeng Yulan", "Ouyang Situ Zhuge Huangfu Linghu Dongfang"),
    "Indian": (
        "Raghunath Sumitra Devendra Kamala Ashwin Lalita",
        "Chandrapur Venkatray Mukherdas Bhatnari Subrama Joshipura",
    ),
    "Arabic": (
        "Marwan Samira Khalid Nawal Faisal Huda",
        "Al-Qasmani Ben_Zaydan El-Mahrouq Bu_Sharif Al-Tarouni Haddadine",
    ),
}


def invent(count: int, text: str) -> list[tuple[str, str]]:
    """(language, name) of `count` people, none of whom the text names, equally many per language; fewer of a language
    if the text lacks letters of its names.
    """
    chosen = []
    for language, (first_names, surnames) in NAMES.items():
        names = [f"{a} {b.replace('_', ' ')}" for a, b in itertools.product(first_names.split(), surnames.split())]
        random.Random(0).shuffle(names)
        names = [name for name in names if name not in text and set(name) <= set(text)]
        chosen += [(language, name) for name in names[: count // len(NAMES)]]
    return chosen


def ask(arguments: argparse.Namespace, names: list[str]) -> str:
    """What `run.py ask` prints about these people. Its warnings go to standard error. Raises UserError if it fails."""
    words = [arguments.variant, arguments.pretrain_corpus_path, "--reading_params_path", arguments.params_path]
    asked = subprocess.run(
        [sys.executable, RUN, "ask", *words, "--bottleneck_dim", arguments.bottleneck_dim],
        input="".join(f"{name}\n" for name in names),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"ask ended with {asked.returncode}: {reason.removeprefix('run.py: error: ')}")
    for line in asked.stderr.splitlines():
        if line.startswith("warning: "):
            print(line, file=sys.stderr)
    return asked.stdout


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("variant")
    parser.add_argument("pretrain_corpus_path")
    parser.add_argument("params_path")
    parser.add_argument("finetune_corpus_path")
    parser.add_argument("--bottleneck_dim", default="32", help="of the perceiver")
    parser.add_argument("--outputs_path", default="invented.tsv", help="where the answers go")
    arguments = parser.parse_args()
    read = (arguments.pretrain_corpus_path, arguments.finetune_corpus_path, arguments.params_path)
    check_writable(arguments.outputs_path, ANSWERS, read)
    people = invent(PEOPLE, read_text(arguments.pretrain_corpus_path))
    if 0 < len(people) < PEOPLE:
        left_out = f"{PEOPLE - len(people)} names are left out"
        print(f"{left_out}: {arguments.pretrain_corpus_path} lacks some of their letters, or has the names")
    if not people:
        raise UserError(f"{arguments.pretrain_corpus_path}: lacks letters of every name in scripts/invented.py")
    pairs = parse_pairs(read_text(arguments.finetune_corpus_path), arguments.finetune_corpus_path)

    answered = ask(arguments, [name for _, name in people])
    write_text(arguments.outputs_path, answered)
    header, *rows = [line.split("\t") for line in answered.removesuffix("\n").split("\n")]
    answers = [row[header.index("answer")] for row in rows]

    trained = Counter(place for _, place in pairs)
    known = sum(answer in trained for answer in answers)
    sure = sorted(float(row[header.index("probability")]) for row in rows)
    print(f"{len(answers)} invented people, {len(set(answers))} different answers; {known} got a place from the pairs")
    print(f"probability of the answer: median {sure[len(sure) // 2]:.3f}, highest {sure[-1]:.3f}\n")
    print(f"{'most frequent answers':28}{'asked':>7}{'finetuned on':>14}   (of {len(answers)}, of {len(pairs)}, in %)")
    for place, count in Counter(answers).most_common(8):
        print(f"{place:28}{100 * count / len(answers):7.1f}{100 * trained[place] / len(pairs):14.1f}")
    print(f"\n{'names that sound':20}most frequent answers")
    for language in NAMES:
        of_them = Counter(answer for (spoken, _), answer in zip(people, answers, strict=True) if spoken == language)
        print(f"{language:20}{', '.join(f'{place} {count}' for place, count in of_them.most_common(4))}")
    print(f"\nWritten: {arguments.outputs_path}")


if __name__ == "__main__":
    exit_on_user_error(main)

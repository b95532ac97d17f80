"""Does attention still choose? How sure it is, layer by layer, in each of the params files.

python scripts/saturation.py vanilla wiki.txt vanilla.pretrain.params vanilla.finetune.params

Prints for each layer the largest attention weight of a character, in the mean over heads and over 64 lines of the text,
without the characters at the beginning of a line, which have few to choose from. Near 1 each head copies one character,
and a softmax so sure passes hardly any gradient: such a layer learns no more where to look.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np

from checkpoint import load_params
from cli import Parser, UserError, exit_on_user_error, positive
from dataset import CharCorruptionDataset
from files import read_text
from inside import attention_maps
from model import ATTENTION, GPT, GPTConfig
from run import BLOCK_SIZE, vocabulary_of

LINES = 64
FIRST = 20  # the position from which on characters count


def largest_weights(model: GPT, documents: CharCorruptionDataset, lines: list[str]) -> list[float]:
    """For each layer the largest attention weight of a position from FIRST on, in the mean over heads and lines."""
    of_lines = [attention_maps(model, documents, line, "") for line in lines]
    return [
        float(np.concatenate([weights[:, FIRST:].max(-1).ravel() for weights in layer]).mean())
        for layer in zip(*of_lines, strict=True)  # each weights (n_head, Tq, Tk)
    ]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("variant", choices=list(ATTENTION))
    parser.add_argument("pretrain_corpus_path")
    parser.add_argument("params_path", nargs="+")
    parser.add_argument("--bottleneck_dim", type=positive(int), default=32, help="of the perceiver")
    arguments = parser.parse_args()
    if arguments.variant == "perceiver" and not FIRST < arguments.bottleneck_dim <= BLOCK_SIZE:
        parser.error(f"--bottleneck_dim {arguments.bottleneck_dim}: must be above {FIRST}, and {BLOCK_SIZE} at most")
    text = read_text(arguments.pretrain_corpus_path)
    documents = CharCorruptionDataset(text, BLOCK_SIZE, arguments.pretrain_corpus_path)
    long = [line[: BLOCK_SIZE - 1] for line in documents.data if len(line) > FIRST]
    if not long:
        raise UserError(
            f"{arguments.pretrain_corpus_path}: no line has more than {FIRST} characters; give a longer text"
        )
    lines = long[:: max(1, len(long) // LINES)][:LINES]
    config = GPTConfig(
        documents.vocab_size, BLOCK_SIZE, variant=arguments.variant, bottleneck_dim=arguments.bottleneck_dim
    )
    for path in arguments.params_path:
        model = GPT(config)
        load_params(model, path, config, arguments.pretrain_corpus_path, vocabulary_of(documents))
        print(path, *(f"{weight:.2f}" for weight in largest_weights(model, documents, lines)), sep="\t")


if __name__ == "__main__":
    exit_on_user_error(main)

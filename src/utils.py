"""Seeds, sampling, and counting right answers."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from dataset import CharCorruptionDataset
from files import count_right, parse_questions, read_text
from model import GPT

if TYPE_CHECKING:
    from trainer import Trainer


def set_seed(seed: int) -> None:
    """Seeds torch's generators, of every device; a run draws from no others."""
    torch.manual_seed(seed)


def sample(
    model: GPT, x: Tensor, steps: int, temperature: float = 1.0, sample: bool = False, top_k: int | None = None
) -> Tensor:
    """Continues x (B, T), int64, by `steps` characters, each fed back in; returns (B, T + steps).

    Takes the likeliest character, or with `sample` draws one from the softmax at `temperature` over the `top_k`
    likeliest. Once the sequence is longer than the block, the model sees its last block_size characters.
    """
    with evaluating(model):
        for _ in range(steps):
            logits, _ = model(x[:, -model.get_block_size() :])
            logits = logits[:, -1] / temperature  # (B, vocab_size)
            if top_k is not None:
                worst_kept = logits.topk(min(top_k, logits.size(-1))).values[:, -1:]
                logits = logits.masked_fill(logits < worst_kept, -torch.inf)
            if sample:
                choice = torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)
            else:
                choice = logits.argmax(dim=-1, keepdim=True)
            x = torch.cat((x, choice), dim=1)
    return x


def answer(
    model: GPT,
    vocabulary: CharCorruptionDataset,
    questions: Sequence[str],
    batch_size: int = 64,
    longest: int | None = None,
    progress: bool = False,
) -> list[str]:
    """The model's answer to each question: greedily, one character after another, from the MASK behind the question up
    to the end mark, `longest` characters, or the end of the block.

    Questions of similar length are answered together, in fp32. What pads the shorter ones comes behind them and is
    seen by none, so the answer to one does not depend on which others stand beside it, but for the rounding of a tie.
    A question that is unanswerable() is answered "".
    """
    device = next(model.parameters()).device
    mask = vocabulary.stoi[vocabulary.MASK_CHAR]
    rows = askable(vocabulary, questions)
    strings = {i: [*vocabulary.encode(questions[i]), mask] for i in rows}  # and the answers so far
    room = vocabulary.block_size if longest is None else longest
    ends = {i: min(vocabulary.block_size, len(string) + room) for i, string in strings.items()}
    with evaluating(model), tqdm(total=len(questions), unit="question", disable=not progress, delay=2) as bar:
        bar.update(len(questions) - len(rows))
        for start in range(0, len(rows), batch_size):
            going = rows[start : start + batch_size]
            while going:
                x = pad_sequence([torch.tensor(strings[i]) for i in going], batch_first=True).to(device)  # (B, T)
                last = torch.tensor([len(strings[i]) - 1 for i in going], device=device)
                logits = model(x)[0][torch.arange(len(going), device=device), last]  # (B, vocab_size)
                choice = answer_log_probabilities(vocabulary, logits).argmax(dim=-1)
                for i, character in zip(going, choice.tolist(), strict=True):
                    strings[i].append(character)
                going = [i for i in going if strings[i][-1] != mask and len(strings[i]) < ends[i]]
            bar.update(len(rows[start : start + batch_size]))
    written = {i: strings[i][len(questions[i]) + 1 :] for i in rows}
    return [vocabulary.decode(written.get(i, [])).removesuffix(vocabulary.MASK_CHAR) for i in range(len(questions))]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout and gradients, and as it was afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def answer_log_probabilities(vocabulary: CharCorruptionDataset, logits: Tensor) -> Tensor:
    """Log probabilities from logits (N, vocab_size), which it changes: an answer holds no PAD and is one line."""
    for never in (vocabulary.PAD_CHAR, "\n"):
        if never in vocabulary.stoi:
            logits[:, vocabulary.stoi[never]] = -torch.inf
    return F.log_softmax(logits, dim=-1)


def askable(vocabulary: CharCorruptionDataset, questions: Sequence[str]) -> list[int]:
    """Which of the questions the model can be asked, the shortest first."""
    possible = [i for i, question in enumerate(questions) if unanswerable(vocabulary, question) is None]
    return sorted(possible, key=lambda i: len(questions[i]))


def unanswerable(vocabulary: CharCorruptionDataset, question: str) -> str | None:
    """Why the model cannot be asked this question, or None when it can."""
    try:
        length = len(vocabulary.encode(question))
    except ValueError as error:
        return str(error)
    if length + 2 > vocabulary.block_size:  # a MASK and one character of an answer
        return f"the question has {length} characters, at most {vocabulary.block_size - 2} fit into the block"
    return None


def dev_accuracy(
    questions: list[tuple[str, str]], vocabulary: CharCorruptionDataset
) -> "Callable[[Trainer], dict[str, float]]":
    """What a trainer calls after each epoch to have the questions answered and counted, about twenty times a run."""
    asked = [question for question, _ in questions]
    longest = 1 + max(len(place) for _, place in questions)  # an untrained model writes on and on

    def measure(trainer: "Trainer") -> dict[str, float]:
        every = math.ceil(trainer.config.max_epochs / 20)  # epochs; more often would cost more than it shows
        if trainer.epoch % every and trainer.epoch != trainer.config.max_epochs:
            return {}
        right = count_right(questions, answer(trainer.model, vocabulary, asked, longest=longest))
        return {"dev accuracy (%)": 100 * right / len(questions)}

    return measure


def evaluate_places(filepath: str, predicted_places: list[str]) -> tuple[float, float]:
    """count_places() for the rows of a question file. Raises UserError when it is none."""
    return count_places(parse_questions(read_text(filepath), filepath), predicted_places)


def count_places(pairs: list[tuple[str, str | None]], predicted_places: list[str]) -> tuple[float, float]:
    """(total, correct) of predictions, one a pair; (0, 0), and a line that says so, when the pairs have no places.

    Else raises ValueError when the counts differ.
    """
    if pairs[0][1] is None:
        print("No gold birth places provided; returning (0,0)")
        return 0.0, 0.0
    if len(pairs) != len(predicted_places):
        raise ValueError(f"{len(predicted_places)} predictions for {len(pairs)} questions")
    return float(len(pairs)), float(count_right(pairs, predicted_places))


def accuracy_line(total: float, correct: float) -> str:
    """The line that reports an accuracy."""
    return f"Correct: {correct} out of {total}: {round(100 * correct / total, 2)}%"

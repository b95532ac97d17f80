"""Seeds, sampling, and counting right answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from dataset import CharCorruptionDataset
from files import count_right, parse_questions, read_text
from model import GPT


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

    Questions of one length are answered together, in fp32 and unpadded, so that the answer to one does not depend on
    which others stand beside it, but for the rounding of a tie. A question that is unanswerable() is answered "".
    """
    mask = vocabulary.stoi[vocabulary.MASK_CHAR]
    answers = [""] * len(questions)
    with evaluating(model), tqdm(total=len(questions), unit="question", disable=not progress, delay=2) as bar:
        for rows, x in askable_batches(model, vocabulary, questions, batch_size):
            going = torch.arange(len(rows), device=x.device)  # the rows without an end mark yet
            written: list[list[int]] = [[] for _ in rows]
            end = vocabulary.block_size if longest is None else min(vocabulary.block_size, x.size(1) + longest)
            while len(going) and x.size(1) < end:
                choice = answer_log_probabilities(vocabulary, model(x)[0][:, -1]).argmax(dim=-1)  # (B,)
                on = choice != mask
                going, x = going[on], torch.cat((x[on], choice[on, None]), dim=1)
                for row, character in zip(going.tolist(), choice[on].tolist(), strict=True):
                    written[row].append(character)
            for i, ids in zip(rows, written, strict=True):
                answers[i] = vocabulary.decode(ids)
            bar.update(len(rows))
    return answers


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout and gradients, and as it was afterwards."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(was_training)


def askable_batches(
    model: GPT, vocabulary: CharCorruptionDataset, questions: Sequence[str], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """The questions that can be asked, those of one length together: their indices, and question MASK as ids (B, T)."""
    device = next(model.parameters()).device
    mask = vocabulary.stoi[vocabulary.MASK_CHAR]
    askable = [i for i, question in enumerate(questions) if unanswerable(vocabulary, question) is None]
    by_length = sorted(askable, key=lambda i: len(questions[i]))
    while by_length:
        length = len(questions[by_length[0]])
        rows = [i for i in by_length[:batch_size] if len(questions[i]) == length]
        by_length = by_length[len(rows) :]
        yield rows, torch.tensor([[*vocabulary.encode(questions[i]), mask] for i in rows], device=device)


def answer_log_probabilities(vocabulary: CharCorruptionDataset, logits: Tensor) -> Tensor:
    """Log probabilities from logits (N, vocab_size) inside an answer, which holds no PAD and is one line."""
    logits[:, [vocabulary.stoi[c] for c in (vocabulary.PAD_CHAR, "\n") if c in vocabulary.stoi]] = -torch.inf
    return F.log_softmax(logits, dim=-1)


def unanswerable(vocabulary: CharCorruptionDataset, question: str) -> str | None:
    """Why the model cannot be asked this question, or None when it can."""
    try:
        length = len(vocabulary.encode(question))
    except ValueError as error:
        return str(error)
    if length + 2 > vocabulary.block_size:  # a MASK and one character of an answer
        return f"the question has {length} characters, at most {vocabulary.block_size - 2} fit into the block"
    return None


def evaluate_places(filepath: str, predicted_places: list[str]) -> tuple[float, float]:
    """(total, correct) of predictions, one a row of a question file; (0, 0) when the file holds no places.

    Raises UserError when the file is not a question file, ValueError when the counts differ.
    """
    pairs = parse_questions(read_text(filepath), filepath)
    if pairs[0][1] is None:
        print("No gold birth places provided; returning (0,0)")
        return 0.0, 0.0
    if len(pairs) != len(predicted_places):
        raise ValueError(f"{len(predicted_places)} predictions for the {len(pairs)} questions of {filepath}")
    return float(len(pairs)), float(count_right(pairs, predicted_places))


def accuracy_line(total: float, correct: float) -> str:
    """The line that reports an accuracy."""
    return f"Correct: {correct} out of {total}: {round(100 * correct / total, 2)}%"

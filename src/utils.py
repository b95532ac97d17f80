"""Functions under the course's names: seeding, sampling, and scoring a file of questions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from files import read_text
from model import GPT, evaluating
from question import count_places, parse_questions


def set_seed(seed: int) -> None:
    """Seeds torch's generators, of every device; a run draws from no others."""
    torch.manual_seed(seed)


def sample(
    model: GPT, x: Tensor, steps: int, temperature: float = 1.0, sample: bool = False, top_k: int | None = None
) -> Tensor:
    """Continues x (B, T), int64, by `steps` characters, each fed back in; returns (B, T + steps).

    Takes the likeliest character, or with `sample` draws one from the softmax at `temperature` over exactly the `top_k`
    likeliest; a temperature of 0 takes the likeliest too. Once the sequence is longer than the block, the model sees
    its last block_size characters. Raises ValueError for an empty x, a negative temperature and a top_k below 1.
    """
    if x.size(1) == 0:
        raise ValueError("x has no characters to continue; give at least one")
    if not temperature >= 0:
        raise ValueError(f"temperature {temperature} is negative; give 0 or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k {top_k} leaves nothing to choose from; give 1 or more, or None for all")
    with evaluating(model):
        for _ in range(steps):
            logits = model(x[:, -model.get_block_size() :])[0][:, -1]  # (B, vocab_size)
            if not sample or temperature == 0:
                choice = logits.argmax(dim=-1, keepdim=True)  # (B, 1)
            else:
                if top_k is not None:
                    kept, indices = logits.topk(min(top_k, logits.size(-1)))  # (B, top_k)
                    logits = torch.full_like(logits, -torch.inf).scatter(1, indices, kept)
                choice = torch.multinomial(F.softmax(logits / temperature, dim=-1), num_samples=1)
            x = torch.cat((x, choice), dim=1)
    return x


def evaluate_places(filepath: str, predicted_places: Sequence[str]) -> tuple[float, float]:
    """(total, correct) of the predictions for a question file; (0, 0) if it has no places.

    Raises UserError if it is not a question file, ValueError if there are more or fewer predictions than questions.
    """
    return count_places(parse_questions(read_text(filepath), filepath), predicted_places)

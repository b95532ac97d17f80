"""The course's names: sampling and scoring a file of questions."""

import pytest
import torch
from conftest import PAIRS, PEOPLE, QUESTIONS, small_model

from cli import UserError
from utils import evaluate_places, sample, set_seed


class Scores(torch.nn.Module):
    """Gives every next character the same logits, whatever came before."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def get_block_size(self) -> int:
        return 8

    def forward(self, idx):
        return self.logits.expand(*idx.shape, -1), None


def test_sampling_draws_from_the_softmax_of_the_likeliest(documents):
    model = small_model(documents.vocab_size).eval()
    x = torch.full((4000, 1), 5)
    logits = model(x[:1])[0][0, -1].detach()
    drawn = sample(model, x, 1, temperature=0.5, sample=True, top_k=3)[:, 1]
    top = logits.topk(3)
    p = torch.softmax(top.values / 0.5, dim=0)
    assert set(drawn.tolist()) == set(top.indices.tolist())
    for i, probability in zip(top.indices, p, strict=True):
        assert abs((drawn == i).double().mean() - probability) < 0.04


class Counting(torch.nn.Module):
    """Predicts that each character is followed by the one with the next id."""

    def get_block_size(self) -> int:
        return 8

    def forward(self, idx):
        assert idx.size(1) <= 8
        return torch.nn.functional.one_hot(idx + 1, 50).float(), None


def test_sampling_beyond_the_block_continues_from_its_end():
    assert sample(Counting(), torch.tensor([[0]]), 20)[0].tolist() == list(range(21))


def test_temperature_zero_is_greedy(documents):
    model = small_model(documents.vocab_size).eval()
    x = torch.arange(12).view(3, 4)
    greedy = x
    for _ in range(5):
        greedy = torch.cat((greedy, model(greedy)[0][:, -1].argmax(dim=-1, keepdim=True)), dim=1)
    state = torch.get_rng_state()
    for top_k in (None, 1, 3, 10_000):
        assert sample(model, x, 5, temperature=0, sample=True, top_k=top_k).equal(greedy)
        assert sample(model, x, 5, temperature=0.0, top_k=top_k).equal(greedy)
        assert sample(model, x, 5, top_k=top_k).equal(greedy)
    assert torch.get_rng_state().equal(state)  # nothing was drawn
    assert sample(model, x, 5, temperature=1e-6, sample=True).equal(greedy)


@pytest.mark.parametrize("top_k", [1, 2, 3, 4, 5, 9])
def test_top_k_keeps_exactly_k_of_equal_scores(top_k):
    drawn = sample(Scores([1.0, 3.0, 3.0, 3.0, 3.0]), torch.zeros(3000, 1, dtype=torch.long), 1, 1.0, True, top_k)
    kept = set(drawn[:, 1].tolist())
    assert len(kept) == min(top_k, 5)
    assert (0 in kept) == (top_k > 4)  # the least likely


def test_same_seed_draws_the_same_characters():
    x = torch.zeros(50, 1, dtype=torch.long)
    model = Scores([0.1, 0.2, 0.3, 0.2])
    draws = []
    for _ in range(2):
        set_seed(3)
        draws.append(sample(model, x, 2, 0.7, True))
    assert draws[0].equal(draws[1])
    set_seed(3)
    assert draws[0].equal(sample(model, x, 2, 0.7, True, top_k=4))  # top_k of all changes nothing


def test_what_cannot_be_sampled_is_refused(documents):
    model = small_model(documents.vocab_size)
    x = torch.tensor([[2]])
    for empty in (x[:, :0], torch.empty(3, 0, dtype=torch.long)):
        with pytest.raises(ValueError, match="x has no characters to continue"):
            sample(model, empty, 1)
    for temperature in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature"):
            sample(model, x, 1, temperature=temperature)
    with pytest.raises(ValueError, match="top_k 0"):
        sample(model, x, 1, sample=True, top_k=0)


def test_sampling_turns_dropout_off_and_keeps_the_training_mode(documents):
    model, x = small_model(documents.vocab_size, dropout=0.5).train(), torch.tensor([[2]])
    drawn = sample(model, x, 20)
    assert model.training
    assert sample(model.eval(), x, 20).equal(drawn) and not model.training


def test_evaluate_places_counts_as_the_course_does(tmp_path, capsys):
    path = tmp_path / "dev.tsv"
    path.write_text(PAIRS, encoding="utf-8")
    assert evaluate_places(str(path), ["London"] * 6) == (6.0, 2.0)
    assert evaluate_places(str(path), [place for _, place in PEOPLE]) == (6.0, 6.0)
    assert evaluate_places(str(path), [f" {place}\u3000" for _, place in PEOPLE]) == (6.0, 6.0)
    places = [place for _, place in PEOPLE]
    for text in (PAIRS[:-1], PAIRS.replace("\n", "\r\n"), PAIRS.replace("\n", " \n"), f"{PAIRS}\n"):
        path.write_bytes(text.encode())
        assert evaluate_places(str(path), places) == (6.0, 6.0)
        assert evaluate_places(str(path), [*places[:3], "?", "?", "?"]) == (6.0, 3.0)
        assert evaluate_places(str(path), [place.upper() for place in places]) == (6.0, 0.0)
    with pytest.raises(ValueError, match="5 predictions"):
        evaluate_places(str(path), ["London"] * 5)
    path.write_text(QUESTIONS, encoding="utf-8")
    assert evaluate_places(str(path), ["London"] * 6) == (0.0, 0.0)
    assert capsys.readouterr().out == "No gold birth places provided; returning (0,0)\n"
    path.write_text(QUESTIONS.splitlines()[0] + "\n" + PAIRS, encoding="utf-8")
    with pytest.raises(UserError, match=r"dev\.tsv, line 2: a tab, but line 1 has none"):
        evaluate_places(str(path), ["London"] * 7)

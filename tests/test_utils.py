"""Sampling, and scoring a file of questions."""

import pytest
import torch
from conftest import PAIRS, PEOPLE, small_model

from cli import UserError
from utils import evaluate_places, sample

QUESTIONS = [f"Where was {name} born?" for name, _ in PEOPLE]


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
    assert sample(model, x[:1], 200).shape == (1, 201)  # longer than the block


def test_temperature_zero_is_greedy(documents):
    model = small_model(documents.vocab_size).eval()
    x = torch.tensor([[5, 6], [7, 8]])
    greedy = sample(model, x, 10)
    assert torch.equal(greedy[:, 2:3], model(x)[0][:, -1:].argmax(-1))
    assert torch.equal(sample(model, x, 10, temperature=0.0, sample=True, top_k=5), greedy)
    assert torch.equal(sample(model, x, 10, temperature=0.0), greedy)
    with pytest.raises(ValueError, match="temperature -1"):
        sample(model, x, 1, temperature=-1)


def test_top_k_keeps_exactly_k_of_equal_scores(documents):
    model = small_model(documents.vocab_size).eval()
    with torch.no_grad():
        model.head.weight.zero_()  # all scores are equal
    drawn = sample(model, torch.full((500, 1), 5), 1, sample=True, top_k=3)[:, 1]
    assert len(drawn.unique()) == 3


def test_empty_prompt_is_refused(documents):
    with pytest.raises(ValueError, match="x has no characters to continue"):
        sample(small_model(documents.vocab_size), torch.zeros(1, 0, dtype=torch.int64), 1)


def test_evaluate_places_counts_as_the_course_does(tmp_path, capsys):
    path = tmp_path / "dev.tsv"
    path.write_text(PAIRS, encoding="utf-8")
    assert evaluate_places(str(path), ["London"] * 6) == (6.0, 2.0)
    assert evaluate_places(str(path), [place for _, place in PEOPLE]) == (6.0, 6.0)
    with pytest.raises(ValueError, match="5 predictions"):
        evaluate_places(str(path), ["London"] * 5)
    path.write_text("\n".join(QUESTIONS), encoding="utf-8")
    assert evaluate_places(str(path), ["London"] * 6) == (0.0, 0.0)
    assert capsys.readouterr().out == "No gold birth places provided; returning (0,0)\n"
    path.write_text(QUESTIONS[0] + "\n" + PAIRS)
    with pytest.raises(UserError, match=r"dev\.tsv, line 2: a tab, but line 1 has none"):
        evaluate_places(str(path), ["London"] * 7)

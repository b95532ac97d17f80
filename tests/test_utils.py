"""Sampling, answering and counting."""

from types import SimpleNamespace

import pytest
import torch
from conftest import PAIRS, PEOPLE

from cli import UserError
from dataset import NameDataset
from files import parse_pairs
from model import GPT, GPTConfig
from trainer import Trainer, TrainerConfig
from utils import accuracy_line, answer, dev_accuracy, evaluate_places, sample, unanswerable

QUESTIONS = [f"Where was {name} born?" for name, _ in PEOPLE]


@pytest.fixture(scope="module")
def taught():
    """A model that has learned the six places by heart, and its vocabulary."""
    from conftest import WIKI

    from dataset import CharCorruptionDataset

    torch.manual_seed(0)
    documents = CharCorruptionDataset(WIKI, 128)
    model = GPT(GPTConfig(documents.vocab_size, 128, 2, 2, 64, "rope", embd_pdrop=0, resid_pdrop=0, attn_pdrop=0))
    config = TrainerConfig(max_epochs=60, batch_size=6, learning_rate=3e-3, device="cpu", precision="fp32")
    Trainer(model, NameDataset(documents, PAIRS), None, config).train()
    return model, documents


def test_a_taught_model_answers_and_letters_outside_ascii_survive(taught):
    assert answer(*taught, QUESTIONS) == [place for _, place in PEOPLE]


def test_answers_do_not_depend_on_the_batch(taught):
    model, documents = taught
    torch.manual_seed(3)
    untrained = GPT(GPTConfig(documents.vocab_size, 128, 2, 2, 64, "vanilla"))
    with torch.no_grad():
        untrained.head.weight.mul_(20)
    alike = [f"Where was {first}{second} born?" for first in "Adrk" for second in "eiou"]  # of one length
    for asked in (model, untrained):
        together = answer(asked, documents, QUESTIONS + alike, batch_size=64)
        assert len(set(together)) > 3
        assert together == answer(asked, documents, QUESTIONS + alike, batch_size=1)
        assert together == answer(asked, documents, (QUESTIONS + alike)[::-1], batch_size=3)[::-1]


def test_answering_is_sampling_the_likeliest_up_to_the_mark(taught):
    model, documents = taught
    for question in QUESTIONS:
        x = torch.tensor([[*documents.encode(question), 1]])
        continuation = documents.decode(sample(model, x, steps=30)[0])
        assert continuation.split(documents.MASK_CHAR)[1] == answer(model, documents, [question])[0]


def test_an_answer_ends_with_the_block(documents):
    model = GPT(GPTConfig(documents.vocab_size, 128, 2, 2, 16))
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[documents.stoi["e"]] = 1.0
        model.ln_f.weight.zero_()
        model.ln_f.bias.fill_(1.0)  # every position scores "e" highest
    assert answer(model, documents, ["Where"])[0] == "e" * (128 - len("Where") - 1)
    with torch.no_grad():  # but an answer is one line, and padding is none
        model.head.weight[documents.stoi["\n"]] = 2.0
        model.head.weight[0] = 3.0
    assert answer(model, documents, ["Where"])[0] == "e" * (128 - len("Where") - 1)


def test_asking_leaves_the_training_mode_alone(taught):
    model, documents = taught
    model.train()
    answer(model, documents, QUESTIONS[:1])
    sample(model, torch.tensor([[2]]), 1)
    assert model.training
    model.eval()


def test_sampling_draws_from_the_softmax_of_the_likeliest(documents):
    model = GPT(GPTConfig(documents.vocab_size, 128, 2, 2, 16)).eval()
    x = torch.full((4000, 1), 5)
    logits = model(x[:1])[0][0, -1].detach()
    drawn = sample(model, x, 1, temperature=0.5, sample=True, top_k=3)[:, 1]
    top = logits.topk(3)
    p = torch.softmax(top.values / 0.5, dim=0)
    assert set(drawn.tolist()) == set(top.indices.tolist())
    for i, probability in zip(top.indices, p, strict=True):
        assert abs((drawn == i).double().mean() - probability) < 0.04
    assert sample(model, x[:1], 200).shape == (1, 201)  # longer than the block


def test_unanswerable_questions_say_why(documents):
    assert unanswerable(documents, QUESTIONS[0]) is None
    assert "'王'" in unanswerable(documents, "Where was 王 born?")
    assert unanswerable(documents, "W" * 126) is None
    assert "127 characters, at most 126" in unanswerable(documents, "W" * 127)


def test_counting(tmp_path, capsys):
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


@pytest.mark.parametrize(("epochs", "times"), [(650, 20), (60, 20), (16, 16), (1, 1)])
def test_accuracy_is_measured_about_twenty_times_a_run_and_at_its_end(documents, monkeypatch, epochs, times):
    monkeypatch.setattr("utils.answer", lambda model, vocabulary, questions, longest: ["London"] * len(questions))
    measure = dev_accuracy(parse_pairs(PAIRS), documents)
    config = SimpleNamespace(max_epochs=epochs)
    said = [measure(SimpleNamespace(model=None, config=config, epoch=epoch)) for epoch in range(1, epochs + 1)]
    measured = [figures["dev accuracy (%)"] for figures in said if figures]
    assert len(measured) == times and set(measured) == {100 * 2 / 6} and said[-1]


def test_the_accuracy_line_is_the_course_s():
    assert accuracy_line(500.0, 115.0) == "Correct: 115.0 out of 500.0: 23.0%"
    assert accuracy_line(400.0, 47.0) == "Correct: 47.0 out of 400.0: 11.75%"

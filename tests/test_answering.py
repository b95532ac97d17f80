"""Answers, their probabilities and the beam search, each against a plain formula."""

import itertools
import math
import unicodedata

import pytest
import torch
from conftest import PAIRS, PEOPLE, VARIANTS, WIKI, small_model
from torch.nn import functional as F

from answering import answer, answer_probabilities, likeliest_answers, unanswerable
from dataset import CharCorruptionDataset, NameDataset
from model import GPT
from trainer import Trainer, TrainerConfig
from utils import sample

QUESTIONS = [f"Where was {name} born?" for name, _ in PEOPLE]


@pytest.fixture(scope="module")
def taught():
    """A model that has learned the six places by heart, and its vocabulary."""
    torch.manual_seed(0)
    documents = CharCorruptionDataset(WIKI, 128)
    model = small_model(documents.vocab_size, "rope", dropout=0.0, n_layer=2, n_embd=64)
    config = TrainerConfig(max_epochs=60, batch_size=6, learning_rate=3e-3, device="cpu", precision="fp32")
    Trainer(model, NameDataset(documents, PAIRS), None, config).train()
    return model, documents


def sure_model(documents: CharCorruptionDataset, variant: str = "vanilla", scale: float = 1.0) -> GPT:
    """An untrained model that is the surer the larger the scale."""
    model = small_model(documents.vocab_size, variant, block_size=documents.block_size, n_embd=16, bottleneck_dim=8)
    with torch.no_grad():
        model.head.weight.mul_(scale)
    return model


def test_taught_model_answers_with_letters_outside_ascii(taught):
    assert answer(*taught, QUESTIONS) == [place for _, place in PEOPLE]


def test_answers_do_not_depend_on_the_batch(taught):
    model, documents = taught
    torch.manual_seed(3)
    untrained = small_model(documents.vocab_size, n_embd=64)
    with torch.no_grad():
        untrained.head.weight.mul_(20)
    same_length = [f"Where was {first}{second} born?" for first in "Adrk" for second in "eiou"]  # of one length
    for asked in (model, untrained):
        together = answer(asked, documents, QUESTIONS + same_length, batch_size=64)
        assert len(set(together)) > 3
        assert together == answer(asked, documents, QUESTIONS + same_length, batch_size=1)
        assert together == answer(asked, documents, (QUESTIONS + same_length)[::-1], batch_size=3)[::-1]


def test_answering_equals_greedy_sampling_up_to_the_mark(taught):
    model, documents = taught
    for question in QUESTIONS:
        x = torch.tensor([[*documents.encode(question), 1]])
        continuation = documents.decode(sample(model, x, steps=30)[0])
        assert continuation.split(documents.MASK_CHAR)[1] == answer(model, documents, [question])[0]


def test_answer_ends_with_the_block(documents):
    model = small_model(documents.vocab_size)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[documents.stoi["e"]] = 1.0
        model.ln_f.weight.zero_()
        model.ln_f.bias.fill_(1.0)  # every position scores "e" highest
    assert answer(model, documents, ["Where"])[0] == "e" * (128 - len("Where") - 1)
    with torch.no_grad():  # an answer has no line end and no padding
        model.head.weight[documents.stoi["\n"]] = 2.0
        model.head.weight[0] = 3.0
    assert answer(model, documents, ["Where"])[0] == "e" * (128 - len("Where") - 1)


def test_asking_keeps_the_training_mode(taught):
    model, documents = taught
    model.train()
    answer(model, documents, QUESTIONS[:1])
    sample(model, torch.tensor([[2]]), 1)
    assert model.training
    model.eval()


def test_unanswerable_questions_say_why(documents):
    assert unanswerable(documents, QUESTIONS[0]) is None
    assert "'王' (U+738B) is not in the pretraining text" in unanswerable(documents, "Where was 王 born?")
    assert unanswerable(documents, "W" * 126) is None
    assert "127 characters, at most 126" in unanswerable(documents, "W" * 127)


@pytest.mark.parametrize(
    ("composed", "mark"), [("Björk", "U+0308"), ("Łódź", "U+0301"), ("Й", "U+0306"), ("が", "U+3099")]
)
def test_decomposed_letter_is_named_with_the_way_out(composed, mark):
    vocabulary = CharCorruptionDataset(composed + "Bjork Łodz И か", 24)
    reason = unanswerable(vocabulary, unicodedata.normalize("NFD", composed))
    assert mark in reason and "as one character (Unicode form NFC)" in reason
    assert unanswerable(vocabulary, composed) is None


def probability_by_hand(model: GPT, documents: CharCorruptionDataset, question: str, answer: str) -> float:
    """One forward over the whole string, without PAD and line end in each distribution."""
    model.eval()
    string = [*documents.encode(question), 1, *documents.encode(answer), 1]
    logits = model(torch.tensor([string[:-1]]))[0][0].detach()
    logits[:, [0, documents.stoi["\n"]]] = -math.inf
    p = F.softmax(logits.double(), dim=-1)
    start = len(question)
    return math.prod(float(p[i, string[i + 1]]) for i in range(start, len(string) - 1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_probability_is_the_product_over_answer_and_end_mark(documents, variant):
    model = sure_model(documents, variant, 20.0)
    questions = ["Where was Ada Lovelace born?", "Where was Björk born?", "Who was 王?"]
    found = answer_probabilities(model, documents, questions, ["London", "", ""])
    assert found[0] == pytest.approx(probability_by_hand(model, documents, questions[0], "London"), rel=1e-4)
    assert found[1] == pytest.approx(probability_by_hand(model, documents, questions[1], ""), rel=1e-4)
    assert found[2] == 0.0


def test_beam_search_finds_the_likeliest_of_all_answers():
    documents = CharCorruptionDataset("ab\nba", 24)
    for seed in range(5):
        torch.manual_seed(seed)
        model = sure_model(documents, scale=60.0)
        every = ["".join(letters) for n in range(7) for letters in itertools.product("ab", repeat=n)]
        (found,) = likeliest_answers(model, documents, ["ab"], width=4, beams=16)
        for said, p in found:
            assert p == pytest.approx(probability_by_hand(model, documents, "ab", said), rel=1e-4)
        worst = min(p for _, p in found)
        missed = set(every) - {said for said, _ in found}
        assert len(found) == 4 and found == sorted(found, key=lambda found: -found[1])
        assert max(probability_by_hand(model, documents, "ab", said) for said in missed) <= worst * 1.0001


def test_likeliest_answers_do_not_depend_on_other_questions(documents):
    model = sure_model(documents, scale=30.0)
    questions = ["Where was Ada Lovelace born?", "Where was Björk born?", "王", "Where was Alan Turing born?"]
    together = likeliest_answers(model, documents, questions)
    assert together[2] == [] and all(len(answers) == 5 for i, answers in enumerate(together) if i != 2)
    for question, answers in zip(questions, together, strict=True):
        (alone,) = likeliest_answers(model, documents, [question])
        assert [place for place, _ in alone] == [place for place, _ in answers]

"""The statistics of salient span masking."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from test_dataset import take_apart
from test_entities import UNTITLED

from cli import UserError
from dataset import CharCorruptionDataset
from entities import read_documents, weigh_by_answer_odds
from question import COURSE_TEMPLATE, QuestionTemplate
from readings import SalientSpanDataset
from recipe import RECIPES

ASKED = [("Where was Alan Turing born?", "London")]


def salient_spans(
    documents: CharCorruptionDataset, pairs: list[tuple[str, str]], template=COURSE_TEMPLATE, **settings
) -> SalientSpanDataset:
    """All readings are salient and follow a question, and entities are drawn by their odds, unless settings differ."""
    settings = {"entity_mask_prob": 1.0, "context_chars": 3, "question_prefix_prob": 1.0} | settings
    return SalientSpanDataset(documents, pairs, template, replace(RECIPES["fast"], **settings))


def test_salient_spans_are_entities_with_context_after_a_title_or_question():
    text = "Ada Lovelace. Ada Lovelace, the daughter of Lord Byron, was born in London, England, and died there ?"
    documents = CharCorruptionDataset(f"{text}\nWhat is to ask of this one ?", 128)
    dataset = salient_spans(
        documents,
        ASKED,
        entity_mask_prob=0.8,
        context_chars=10,
        question_prefix_prob=0.25,
        weight_by_answer_odds=False,
    )
    x, y = dataset.batch(torch.zeros(4000, dtype=torch.int64))
    heads = ["Ada Lovelace. ", "Where was Ada Lovelace born? "]
    names = ["Lord Byron", "London", "England"]
    drawn, before, after = Counter(), set(), set()
    for row in zip(x, y, strict=True):
        prefix, suffix, span = take_apart(documents, *row)
        for head in heads:
            if span in names and prefix.startswith(head) and len(prefix) - len(head) <= 10 and len(suffix) <= 10:
                assert prefix[len(head) :] + span + suffix in text
                drawn[head, span] += 1
                before.add(len(prefix) - len(head))
                after.add(len(suffix))
                break
        else:
            assert prefix + span + suffix == text[: len(prefix + span + suffix)]  # CharCorruptionDataset's
    assert before == after == set(range(11))
    for head, share in zip(heads, (0.75, 0.25), strict=True):
        for name in names:
            assert abs(drawn[head, name] / 4000 - 0.8 * share / 3) < 0.03


def test_entities_are_drawn_by_their_answer_odds():
    lines = ["Ada. in May she was born in Rome ?", "Bea. in May she was born in Oslo, and died in May ?"]
    lines += ["Cleo. in Rome she met a Great Dane ?", "What of it ?"]  # not in the pairs
    lines += ["Zoe. in Bonn ?"]  # in a pair, but the line does not hold the place, so it is not counted
    pairs = [("Where was Ada born?", "Rome"), ("Where was Bea born?", "Oslo"), ("Where was Zoe born?", "May")]
    documents = CharCorruptionDataset("\n".join(lines), 128)
    answers = {"Ada": "Rome", "Bea": "Oslo", "Zoe": "May"}
    found = weigh_by_answer_odds(read_documents(lines, set(answers.values())), answers, set(answers.values()))
    prior = (2 + 1) / (3 + 1)  # two of the five names in lines about people of the pairs are answers
    rome = oslo = (1 + prior) / (0 + 1)
    may = (0 + prior) / (3 + 1)
    one_word = (2 + prior) / (3 + 1)
    after_in, after_born_in, after_died_in = (0 + prior) / (2 + 1), (2 + prior) / (0 + 1), (0 + prior) / (1 + 1)
    before_she, before_mark, before_comma = (0 + prior) / (2 + 1), (1 + prior) / (1 + 1), (1 + prior) / (0 + 1)
    first, second, later = (0 + prior) / (2 + 1), (2 + prior) / (0 + 1), (0 + prior) / (1 + 1)  # of places
    odds = [
        [may * one_word * after_in * before_she * first, rome * one_word * after_born_in * before_mark * second],
        [
            may * one_word * after_in * before_she * first,
            oslo * one_word * after_born_in * before_comma * second,
            may * one_word * after_died_in * before_mark * later,
        ],
        # neither "Dane", nor names of two words, nor "met a" were counted
        [rome * one_word * after_in * before_she * first, prior * prior * prior * before_mark * second],
        [prior * one_word * prior * prior * first],  # of "What"
        [prior * one_word * after_in * before_mark * first],
    ]
    odds = [[five_features / prior**4 for five_features in of_line] for of_line in odds]
    for document, expected in zip(found, odds, strict=True):
        assert document.weights == pytest.approx(expected)

    dataset = salient_spans(documents, pairs)
    drawn = [Counter() for _ in lines]
    indices = torch.arange(5).repeat(1000)
    for line, *row in zip(indices, *dataset.batch(indices), strict=True):
        drawn[line][take_apart(documents, *row)[2]] += 1
    for line, of_line in enumerate(odds):
        of_name = Counter()
        for (start, end), weight in zip(found[line].entities, of_line, strict=True):
            of_name[lines[line][start:end]] += weight / sum(of_line)
        assert drawn[line].keys() <= of_name.keys()
        assert all(abs(drawn[line][name] / 1000 - share) < 0.05 for name, share in of_name.items())


def test_question_comes_less_often_before_a_line_that_is_unlikely_to_hold_the_answer():
    lines = ["Ada. met Eve. met Ida. was born in Rome.", "Bea. was born in Bonn.", "Bea. met Carl.", "Where was it?"]
    documents = CharCorruptionDataset("\n".join(lines), 128)
    pairs = [("Where was Ada born?", "Rome")]
    _, born, met, _ = weigh_by_answer_odds(read_documents(lines, {"Rome"}), {"Ada": "Rome"}, {"Rome"})
    assert born.relevance == 1 and 0.1 < met.relevance < 0.5
    for probability in (1.0, 0.8):
        dataset = salient_spans(documents, pairs, question_prefix_prob=probability)
        for line, expected in [(1, probability), (2, probability * met.relevance)]:
            x, _ = dataset.batch(torch.full((2000,), line))
            heads = Counter(documents.decode(row).split("Bea")[0] for row in x)
            assert heads.keys() <= {"Where was ", ""} and abs(heads["Where was "] / 2000 - expected) < 0.04


@pytest.mark.parametrize(("drawn", "names"), [(0.0, ["Rome", "Oslo"]), (1 - 2**-24, ["Bonn", "Lima"])])
def test_extreme_draws_stay_within_the_document(monkeypatch, drawn, names):
    documents = CharCorruptionDataset("Ada. in Rome or Bonn ?\nBea. in Oslo or Lima ?\nWhere was it born", 128)
    dataset = salient_spans(documents, ASKED)
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.full(shape, drawn))
    assert [take_apart(documents, *row)[2] for row in zip(*dataset.batch(torch.arange(2)), strict=True)] == names


def test_name_that_also_occurs_in_the_wording_is_replaced_once():
    documents = CharCorruptionDataset("Ada. in Rome\nWhere was it born ?", 128)
    dataset = salient_spans(documents, [("Where was W born?", "Rome")])
    prefix, _, span = take_apart(documents, *(row[0] for row in dataset.batch(torch.tensor([0]))))
    assert prefix.startswith("Where was Ada born? ") and span == "Rome"


def test_document_without_entities_or_title_is_read_as_in_char_corruption():
    documents = CharCorruptionDataset("nothing here\nParis\n\nAda. " + "a" * 300 + "\nWhere was it born ?", 128)
    dataset = salient_spans(documents, ASKED, context_chars=10)
    x, y = dataset.batch(torch.arange(4).repeat(200))
    for i, row in enumerate(zip(x, y, strict=True)):
        prefix, suffix, span = take_apart(documents, *row)
        document = documents.data[i % 4]
        assert prefix + span + suffix == (document if i % 4 == 1 else document[: len(prefix + span + suffix)])
        assert i % 4 != 1 or span == "Paris"


@pytest.mark.parametrize("script", UNTITLED)
def test_untitled_line_is_read_after_the_question_about_its_subject(script):
    names, place, lines = UNTITLED[script]
    template = QuestionTemplate("", "?")  # of a script without spaces, the text has none
    documents = CharCorruptionDataset("\n".join([*lines, template.after]), 128)
    dataset = salient_spans(documents, [(template.ask(name), place) for name in names], template)
    for row, name in zip(zip(*dataset.batch(torch.arange(3).repeat(20)), strict=True), names * 20, strict=True):
        prefix, _, span = take_apart(documents, *row)
        assert prefix.startswith(template.ask(name)) and span


def test_wording_with_characters_that_the_text_lacks_is_refused():
    documents = CharCorruptionDataset("Ada. Born in Rome", 128)
    problem = r"^'Где \{name\}': the character 'Г' \(U\+0413\) is not in the pretraining text; word"
    with pytest.raises(UserError, match=problem):
        salient_spans(documents, ASKED, QuestionTemplate("Где ", ""))


@pytest.mark.parametrize(("n", "is_salient"), [(90, True), (106, False)])
def test_context_behind_a_long_title_is_cut_and_an_entity_that_does_not_fit_is_left_out(n, is_salient):
    """A title of n + 6 characters, and 20 characters of context, have at most 112 characters together."""
    text = f"Ada {'b' * n}. born in Rome, and so on and on and on"
    documents = CharCorruptionDataset(f"{text}\nWhere was it born ?", 128)
    dataset = salient_spans(documents, ASKED, context_chars=20, question_prefix_prob=0)
    x, y = dataset.batch(torch.zeros(300, dtype=torch.int64))
    rows = [take_apart(documents, *row) for row in zip(x, y, strict=True)]
    assert max(len("".join(row)) for row in rows) <= 112
    if is_salient:
        assert {span for _, _, span in rows} == {"Rome"}
        assert all(prefix.startswith(text[: n + 6]) for prefix, _, _ in rows)
    else:
        assert all(text.startswith(prefix + span + suffix) for prefix, suffix, span in rows)

"""Reading fact by fact: what a row of the recipe `open` consists of, and that it knows nothing but the text."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import run
from dataset import CharCorruptionDataset
from entities import find_facts, joined
from readings import FactDataset
from recipe import RECIPES

BYRON = "Ada Lovelace. Ada Lovelace, daughter of Lord Byron, was born in London in 1815, and is known for a program."
TEXT = f"{BYRON}\nAlan Turing. Alan Turing, a logician and runner, was born in Maida Vale in 1912, and died in 1954.\n"
NAMES = ("Lord Byron", "London", "1815")
MARK = CharCorruptionDataset.MASK_CHAR


def fact_dataset(documents: CharCorruptionDataset, **settings) -> FactDataset:
    settings = {"context_chars": 6, "prefix_words": 0, "word_weight": 0.0} | settings
    return FactDataset(documents, replace(RECIPES["open"], **settings))


def rows_of(dataset: FactDataset, indices: list[int]) -> list[str]:
    """The strings that are read, without padding."""
    x, y = dataset.batch(torch.tensor(indices))
    pad = CharCorruptionDataset.PAD_CHAR
    strings = torch.cat((x, y[:, -1:]), 1)
    assert x.shape == y.shape == (len(indices), dataset.block_size - 1) and torch.equal(strings[:, 1:], y)
    strings = [dataset.documents.decode(row).rstrip(pad) for row in strings]
    assert all(pad not in string for string in strings)
    return strings


def facts_in(rest: str, text: str, spans: Collection[str]) -> list[tuple[str, str | None, str]]:
    """The (context before, context after, span) of "before MASK after MASK span MASK before MASK span MASK ..."."""
    parts, facts = iter(rest.split(MARK)[:-1]), []
    assert rest.endswith(MARK)
    for before in parts:
        after, span = None, next(parts)
        if span not in spans:
            after, span = span, next(parts)
        assert span in spans and before + span + (after or "") in text
        facts.append((before, after, span))
    return facts


def test_row_is_a_title_and_facts_of_its_document_with_context():
    documents = CharCorruptionDataset(TEXT, 128)
    before, after, spans, titles = set(), Counter(), Counter(), Counter()
    for row in rows_of(fact_dataset(documents), [0] * 400):
        title = re.match(r"Ada Lovelace\.? ", row)[0]
        titles[title] += 1
        facts = facts_in(row.removeprefix(title), BYRON, NAMES)
        assert len({span for *_, span in facts}) == len(facts)  # each once
        before |= {len(left) for left, *_ in facts}
        after.update(None if right is None else len(right) for _, right, _ in facts)
        spans.update(span for *_, span in facts)
    assert before == set(range(7)) and set(after) == {None, *range(7)}
    assert abs(after[None] / 1200 - 0.5) < 0.06 and abs(titles["Ada Lovelace "] / 400 - 0.5) < 0.1
    assert spans == {"Lord Byron": 400, "London": 400, "1815": 400}  # all fit


def test_loss_on_span_leaves_only_spans_and_their_ends_as_targets():
    indices = torch.zeros(200, dtype=torch.int64)
    rows = []
    for loss_on_span in (False, True):
        torch.manual_seed(0)
        documents = CharCorruptionDataset(TEXT, 128)
        documents.loss_on_span = loss_on_span
        rows.append(fact_dataset(documents, prefix_words=3).batch(indices))
    (x, y), (same_x, targets) = rows
    assert torch.equal(x, same_x) and torch.equal(y[targets > 0], targets[targets > 0])
    for row, target in zip(y, targets, strict=True):
        parts = documents.decode(target).replace(MARK, " ").split(CharCorruptionDataset.PAD_CHAR)
        assert sorted(filter(None, parts)) == [f"{name} " for name in sorted(NAMES)]
        assert documents.decode(row[target == 0]).count(MARK) >= len(NAMES)  # those before the spans


def test_row_that_is_too_short_for_all_facts_has_some_in_random_order():
    documents = CharCorruptionDataset(TEXT, 64)
    first = Counter()
    for row in rows_of(fact_dataset(documents), [0] * 600):
        facts = facts_in(re.sub(r"^Ada Lovelace\.? ", "", row), BYRON, NAMES)
        assert 1 <= len(facts) <= 3 and len(row) <= 64
        first[facts[0][2]] += 1
    assert all(150 < first[span] < 250 for span in ("Lord Byron", "London", "1815"))


def test_rarer_words_are_read_later_by_their_weight():
    filler = "Some One. Some One was here, and was there, for a while and in the end.\n" * 30
    documents = CharCorruptionDataset(TEXT + filler, 128)
    dataset = fact_dataset(documents, word_weight=0.25)
    spans = {BYRON[start:end]: weight for start, end, weight in find_facts(documents.data, 0.25)[0][1]}
    assert spans == {"Lord Byron": 1, "London": 1, "1815": 1} | dict.fromkeys(
        ("daughter of", "born", "is known", "program"), 0.25
    )
    first = Counter()
    for row in rows_of(dataset, [0] * 2000):
        first[facts_in(re.sub(r"^Ada Lovelace\.? ", "", row), BYRON, spans)[0][2]] += 1
    assert abs(first["London"] / 2000 - 1 / 4) < 0.04 and abs(first["program"] / 2000 - 1 / 16) < 0.02


def test_dates_are_one_span():
    text = "Ada. born on 10 December 1815 London, died 27 November 1852, in May 5 of 1833."
    (_, spans), *_ = find_facts([text] * 5, 0.0)
    assert [text[start:end] for start, end, _ in spans] == [
        "10 December 1815",
        "London",
        "27 November 1852",
        "May 5",
        "1833",
    ]


def test_first_sentence_of_a_text_without_titles_is_no_title():
    text = "Ada Ek was a poet born in Oslo. Ada Ek lived in Rome. She died in 1850, when she was old."
    (head, spans), *_ = find_facts([text] * 5, 0.0)
    assert (text[:head], [text[start:end] for start, end, _ in spans]) == ("Ada Ek", ["Oslo", "Rome", "1850"])


def test_titles_with_words_in_small_letters_are_titles_where_most_texts_have_one():
    texts = ["Ada Ek. Born in Oslo. Died in Rome."] * 3 + ["Battle of Hastings. It was lost in 1066. It was long."] * 2
    assert [text[:head] for text, (head, _) in zip(texts, find_facts(texts, 0.0), strict=True)] == [
        *["Ada Ek. "] * 3,
        *["Battle of Hastings. "] * 2,
    ]


def test_overlapping_spans_are_one():
    assert joined("A320", [(0, 4), (1, 4)]) == [(0, 4)]
    assert joined("1815 London", [(0, 4), (5, 11)]) == [(0, 4), (5, 11)]


def test_row_begins_with_words_from_anywhere_in_the_text():
    documents = CharCorruptionDataset(TEXT, 128)
    words, single = Counter(), set()
    for row in rows_of(fact_dataset(documents, prefix_words=3), [0] * 900):
        prefix = re.match(r"(.*)Ada Lovelace\.? ", row)[1]
        assert prefix in TEXT and "\n" not in prefix and (not prefix or prefix.endswith(" "))
        words[len(prefix.split())] += 1
        single |= {prefix} if len(prefix.split()) == 1 else set()
    assert len(single) > 15
    assert set(words) == {0, 1, 2, 3} and min(words.values()) > 150


def test_document_without_a_title_is_read_after_its_first_name():
    documents = CharCorruptionDataset("Ada Lovelace, London, 1815\nnothing to ask about", 128)
    rest = documents.data[0].removeprefix("Ada Lovelace")  # no context comes from the head
    for row in rows_of(fact_dataset(documents), [0] * 20):
        facts = facts_in(row.removeprefix("Ada Lovelace"), rest, {"London", "1815"})
        assert len(facts) == 2
    for row in rows_of(fact_dataset(documents), [1] * 20):
        before, after, span, _ = row.split(MARK)
        assert "nothing to ask about".startswith(before + span + after)  # span corruption


def test_every_fact_of_a_long_document_is_read():
    names = {a + b for a in "BCDFGHJKLM" for b in "abcdefghij"}  # 100, more than a row chooses from
    documents = CharCorruptionDataset("Ada. " + ", ".join(sorted(names)) + ".", 128)
    rows = rows_of(fact_dataset(documents, context_chars=0), [0] * 2000)
    assert {name for row in rows for name in re.findall("[B-M][a-j]", row)} == names


@pytest.mark.parametrize(
    "text", ["a", "\n", "Ada", "Ada. Bo", "王小明。王小明生于北京\n", "1 2 3", " ".join(["Bo"] * 500)]
)
def test_any_text_can_be_read(text):
    documents = CharCorruptionDataset(text, 128)
    dataset = fact_dataset(documents, prefix_words=3, word_weight=0.5)
    assert all(len(row) <= 128 for row in rows_of(dataset, list(range(len(documents))) * 20))


def test_pretraining_takes_the_text_alone(world):
    words = "pretrain vanilla wiki.txt --recipe open --pretrain_epochs 2 --device cpu --writing_params_path"
    run.main([*words.split(), "a.params"])
    alone = torch.load("a.params")
    Path("pairs.tsv").write_text("not\tpairs\tat all\n")
    run.main([*words.split(), "b.params", "--finetune_corpus_path", "pairs.tsv"])  # has no effect, not even an error
    assert all(torch.equal(value, alone[name]) for name, value in torch.load("b.params").items())
    assert not RECIPES["open"].pretrains_on_pairs

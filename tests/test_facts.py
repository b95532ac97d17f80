"""Reading fact by fact: what a row of the recipe `open` consists of, and that it knows nothing but the text."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch

import run
from dataset import CharCorruptionDataset
from entities import find_facts
from readings import FactDataset
from recipe import RECIPES

BYRON = "Ada Lovelace. Ada Lovelace, daughter of Lord Byron, was born in London in 1815, and is known for a program."
TEXT = f"{BYRON}\nAlan Turing. Alan Turing, a logician and runner, was born in Maida Vale in 1912, and died in 1954.\n"
MARK = CharCorruptionDataset.MASK_CHAR


def fact_dataset(documents: CharCorruptionDataset, **settings) -> FactDataset:
    settings = {"context_chars": 6, "prefix_words": 0, "facts_per_title": 0, "word_weight": 0.0} | settings
    return FactDataset(documents, **settings)


def rows_of(dataset: FactDataset, indices: list[int]) -> list[str]:
    """The strings that are read, without padding."""
    x, y = dataset.batch(torch.tensor(indices))
    pad = CharCorruptionDataset.PAD_CHAR
    strings = torch.cat((x, y[:, -1:]), 1)
    assert x.shape == y.shape == (len(indices), dataset.block_size - 1) and torch.equal(strings[:, 1:], y)
    strings = [dataset.documents.decode(row).rstrip(pad) for row in strings]
    assert all(pad not in string for string in strings)
    return strings


def facts_in(rest: str) -> list[tuple[str, str, str]]:
    """ "context MASK context MASK span MASK ..." -> (context before, context after, span)."""
    parts = rest.split(MARK)
    assert len(parts) % 3 == 1 and parts[-1] == ""
    return [tuple(parts[i : i + 3]) for i in range(0, len(parts) - 1, 3)]


def test_row_is_a_title_and_facts_of_its_document_with_context():
    documents = CharCorruptionDataset(TEXT, 128)
    before, after, spans = set(), set(), Counter()
    for row in rows_of(fact_dataset(documents), [0] * 300):
        assert row.startswith("Ada Lovelace. ")
        facts = facts_in(row.removeprefix("Ada Lovelace. "))
        assert all(left + span + right in BYRON for left, right, span in facts)
        assert len({span for *_, span in facts}) == len(facts)  # each once
        before |= {len(left) for left, *_ in facts}
        after |= {len(right) for _, right, _ in facts}
        spans.update(span for *_, span in facts)
    assert before == after == set(range(7))
    assert spans == {"Lord Byron": 300, "London": 300, "1815": 300}  # all fit


def test_row_that_is_too_short_for_all_facts_has_some_in_random_order():
    documents = CharCorruptionDataset(TEXT, 64)
    first = Counter()
    for row in rows_of(fact_dataset(documents), [0] * 600):
        facts = facts_in(row.removeprefix("Ada Lovelace. "))
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
    first = Counter(facts_in(row.removeprefix("Ada Lovelace. "))[0][2] for row in rows_of(dataset, [0] * 2000))
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


def test_row_begins_with_words_from_anywhere_in_the_text():
    documents = CharCorruptionDataset(TEXT, 128)
    words = Counter()
    for row in rows_of(fact_dataset(documents, prefix_words=3), [0] * 900):
        prefix, _ = re.split("Ada Lovelace[.] (?!Ada)", row, maxsplit=1)
        assert prefix in TEXT and "\n" not in prefix and (not prefix or prefix.endswith(" "))
        words[len(prefix.split())] += 1
    assert set(words) == {0, 1, 2, 3} and min(words.values()) > 150


def test_other_documents_follow_in_a_row():
    documents, documents_in_rows = CharCorruptionDataset(TEXT, 128), []
    for row in rows_of(fact_dataset(documents, facts_per_title=1), [0] * 50):
        titles = re.findall(r"(?:^|⁇)((?:Ada Lovelace|Alan Turing)\. )", row)
        facts = facts_in(re.sub(r"(^|(?<=⁇))(Ada Lovelace|Alan Turing)\. ", "", row))
        assert titles[0] == "Ada Lovelace. " and len(facts) == len(titles)
        documents_in_rows.append(len(titles))
    assert max(documents_in_rows) > 2


def test_document_without_a_title_is_read_after_its_first_name():
    documents = CharCorruptionDataset("Ada Lovelace was born in London in 1815\nnothing to ask about", 128)
    for row in rows_of(fact_dataset(documents), [0] * 20):
        facts = facts_in(row.removeprefix("Ada Lovelace"))
        assert {span for *_, span in facts} == {"London", "1815"}
    for row in rows_of(fact_dataset(documents), [1] * 20):
        ((before, after, span),) = facts_in(row)
        assert "nothing to ask about".startswith(before + span + after)  # span corruption


@pytest.mark.parametrize(
    "text", ["a", "\n", "Ada", "Ada. Bo", "王小明。王小明生于北京\n", "1 2 3", " ".join(["Bo"] * 500)]
)
def test_any_text_can_be_read(text):
    documents = CharCorruptionDataset(text, 128)
    dataset = fact_dataset(documents, prefix_words=3, facts_per_title=2, word_weight=0.5)
    assert all(len(row) <= 128 for row in rows_of(dataset, list(range(len(documents))) * 20))


def test_pretraining_takes_the_text_alone(world):
    words = "pretrain vanilla wiki.txt --recipe open --pretrain_epochs 2 --device cpu --writing_params_path"
    run.main([*words.split(), "a.params"])
    alone = torch.load("a.params")
    Path("pairs.tsv").write_text("not\tpairs\tat all\n")
    run.main([*words.split(), "b.params", "--finetune_corpus_path", "pairs.tsv"])  # has no effect, not even an error
    assert all(torch.equal(value, alone[name]) for name, value in torch.load("b.params").items())
    assert not RECIPES["open"].pretrains_on_pairs

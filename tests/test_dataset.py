"""The vocabulary, the statistics of span corruption, and question-place pairs."""

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import PAIRS, PEOPLE, WIKI

from cli import UserError
from dataset import (
    CharCorruptionDataset,
    MixedDataset,
    NameDataset,
    SalientSpanDataset,
    answer_odds,
    is_about,
    name_pattern,
    names_behind,
    title_length,
)

MASK, PAD = CharCorruptionDataset.MASK_CHAR, CharCorruptionDataset.PAD_CHAR


ASKED = [("Where was Alan Turing born?", "London")]


def take_apart(dataset: CharCorruptionDataset, x: torch.Tensor, y: torch.Tensor) -> tuple[str, str, str]:
    """(prefix, suffix, masked_content) of an example, after checking its form."""
    assert x.shape == y.shape == (dataset.block_size - 1,)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x[1:], y[:-1])
    string = dataset.itos[int(x[0])] + dataset.decode(y)
    content = string.rstrip(PAD)
    assert PAD not in content
    prefix, suffix, masked, end = content.split(MASK)
    assert end == ""
    return prefix, suffix, masked


def test_vocabulary_is_two_marks_then_the_sorted_characters(documents):
    assert documents.stoi[PAD] == 0 and documents.stoi[MASK] == 1
    assert [documents.itos[i] for i in range(2, documents.vocab_size)] == sorted(set(WIKI))
    assert documents.vocab_size == len(set(WIKI)) + 2 == len(documents.itos) == len(documents.stoi)
    assert documents.num_characters == len(WIKI)


def test_a_trailing_newline_makes_a_last_empty_document(documents):
    assert len(documents) == len(PEOPLE) + 1 and documents.data[-1] == ""
    assert len(CharCorruptionDataset(WIKI.rstrip("\n"), 128)) == len(PEOPLE)


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n\nabc\nabcd\n", "x" * 500])
def test_short_and_long_documents_give_back_their_beginning(text):
    dataset = CharCorruptionDataset(text, 128)
    for idx, document in enumerate(dataset.data):
        for _ in range(20):
            prefix, suffix, masked = take_apart(dataset, *dataset[idx])
            rebuilt = prefix + masked + suffix
            assert document.startswith(rebuilt)
            assert min(len(document), 4) <= len(rebuilt) <= 112


def test_negative_and_too_large_indices_behave_as_in_a_list(documents):
    take_apart(documents, *documents[-1])
    with pytest.raises(IndexError):
        documents[len(documents)]


def test_batches_and_items_share_one_corruption(documents):
    indices = torch.tensor([3, 0, 6, 3])
    x, y = documents.batch(indices)
    torch.manual_seed(0)
    again, _ = documents.batch(indices)
    assert torch.equal(x, again)
    for row, idx in enumerate(indices.tolist()):
        prefix, suffix, masked = take_apart(documents, x[row], y[row])
        assert documents.data[idx].startswith(prefix + masked + suffix)
    torch.manual_seed(5)
    item = documents[2]
    torch.manual_seed(5)
    batch = documents.batch(torch.tensor([2]))
    assert torch.equal(item[0], batch[0][0]) and torch.equal(item[1], batch[1][0])


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truncated lengths, masked lengths and starts of the span in 100,000 corruptions of one long document."""
    dataset = CharCorruptionDataset("abcdefghij" * 40, 128)
    torch.manual_seed(1)
    x, y = dataset.batch(torch.zeros(100_000, dtype=torch.int64))
    strings = torch.cat((x[:, :1], y), dim=1).numpy()  # (draws, block_size)
    marks = np.nonzero(strings == dataset.stoi[MASK])[1].reshape(-1, 3)  # three in each
    return marks[:, 2] - 2, marks[:, 2] - marks[:, 1] - 1, marks[:, 0]


def test_every_truncated_length_is_as_likely(draws):
    lengths, _, _ = draws
    values, counts = np.unique(lengths, return_counts=True)
    assert values.tolist() == list(range(4, 113))
    expected = len(lengths) / len(values)
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 108 + 5 * np.sqrt(2 * 108)  # mean and five standard deviations for 108 degrees of freedom


def test_a_quarter_is_masked_on_average_at_every_length(draws):
    lengths, masked, _ = draws
    assert abs((masked / lengths).mean() - 0.25) < 0.002
    for length in range(4, 113):
        here = masked[lengths == length]
        assert abs(here.mean() - length / 4) < 5 * here.std() / np.sqrt(len(here)) + 1e-9
        assert here.min() == 1
        assert here.max() <= length / 2
        if length >= 8:
            assert len(np.unique(here)) >= length // 2 - 1  # really random


def test_the_span_may_start_anywhere(draws):
    lengths, masked, start = draws
    assert start.min() == 0 and (start <= lengths - masked).all()
    assert (start == lengths - masked).any()
    position = start / (lengths - masked)
    assert abs(position.mean() - 0.5) < 0.01


@pytest.mark.parametrize("length", [1, 2, 3])
def test_very_short_documents_are_masked_a_quarter_of_the_time_a_character(length):
    dataset = CharCorruptionDataset("abc"[:length], 128)
    x, y = dataset.batch(torch.zeros(20_000, dtype=torch.int64))
    marks = torch.nonzero(torch.cat((x[:, :1], y), dim=1) == 1)[:, 1].reshape(-1, 3)
    masked = (marks[:, 2] - marks[:, 1] - 1).double()
    assert abs(masked.mean() - length / 4) < 0.02


@pytest.mark.parametrize("mark", [PAD, MASK])
def test_a_mark_inside_the_text_is_named_with_its_line(mark):
    with pytest.raises(UserError, match=r"wiki\.txt, line 2: "):
        CharCorruptionDataset(f"fine\nnot {mark} fine\n", 128, "wiki.txt")


def test_a_block_without_room_is_refused():
    with pytest.raises(ValueError, match="block_size 16"):
        CharCorruptionDataset("text", 16)


def test_pairs_put_the_loss_on_the_place_and_its_marks(documents):
    names = NameDataset(documents, PAIRS)
    assert len(names) == len(PEOPLE)
    for idx, (name, place) in enumerate(PEOPLE):
        question = f"Where was {name} born?"
        x, y = names[idx]
        assert x.shape == y.shape == (127,)
        assert documents.decode(x) == (question + MASK + place + MASK).ljust(128, PAD)[:-1]
        assert documents.decode(y) == (PAD * (len(question) - 1) + MASK + place + MASK).ljust(127, PAD)
    x, y = names.batch(torch.tensor([4, 1]))
    assert torch.equal(x[1], names[1][0]) and torch.equal(y[0], names[4][1])


@pytest.mark.parametrize("text", [PAIRS.rstrip("\n"), PAIRS.replace("\n", "\r\n"), PAIRS + "\n\n"])
def test_line_ends_neither_lose_nor_invent_rows(documents, text):
    names = NameDataset(documents, text)
    assert [(question, place) for question, place in names.data] == [
        (f"Where was {name} born?", place) for name, place in PEOPLE
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Where was Ada Lovelace born?", "line 2: no tab"),
        ("Where was Ada Lovelace born?\tLondon\tEngland", "line 2: 3 columns"),
        ("\tLondon", "line 2: no question"),
        ("Where was Ada Lovelace born?\t", "line 2: no place"),
        ("Where was 王 born?\tLondon", "line 2: the character '王'"),
        (f"Where was Ada born?\tLond{PAD}n", f"line 2: the character '{PAD}'"),
        (f"Where was Ada born?\tLond{MASK}n", f"line 2: the character '{MASK}'"),
        (f"Where was {'A' * 120} born?\tLondon", "line 2: question and place take"),
    ],
)
def test_a_wrong_row_is_named(documents, row, message):
    with pytest.raises(UserError, match=rf"pairs\.tsv, {message}"):
        NameDataset(documents, f"Where was Björk born?\tReykjavík\n{row}\n", "pairs.tsv")


@pytest.mark.parametrize(
    ("document", "title"),
    [
        ("Ada Lovelace. Born in London .", "Ada Lovelace. "),
        ("J. R. R. Tolkien. Tolkien was born .", "J. R. R. Tolkien. "),
        ("St. Vincent. A singer .", "St. Vincent. "),
        ("Malcolm X. In 1925 Malcolm X was born .", "Malcolm X. "),
        ("Franklin D. Roosevelt. Franklin D. Roosevelt was born .", "Franklin D. Roosevelt. "),
        ("Malcolm X. Omaha is where Malcolm X, an activist, was born.", "Malcolm X. "),
        ("Elizabeth I. In 1533 London became the birthplace of Elizabeth I, a queen.", "Elizabeth I. "),
        ("Peter F. Drucker. Peter F Drucker was born in Vienna .", "Peter F. Drucker. "),
        ("J. J. Thomson. Thomson, once a pupil of J Reynolds, was born .", "J. J. Thomson. "),
        ("Martin King, Jr.. Martin King was born in Atlanta .", "Martin King, Jr.. "),
        ("Elizabeth I. Birthplace: London (England). Known for a long reign .", "Elizabeth I. "),
        ("James VI and I. Known for two crowns in 1603. Born in Edinburgh .", "James VI and I. "),
        ("Malcolm X. American civil rights leader. Born in Omaha .", "Malcolm X. "),
        ("J. R. Ewing. Born in Dallas .", "J. R. Ewing. "),
        ("Lydia Ko. Born in Seoul .", "Lydia Ko. "),
        ("Pope Adrian VI. Born in Utrecht .", "Pope Adrian VI. "),
        ("Søren Kierkegaård. Born .", "Søren Kierkegaård. "),
        ("no title at all", ""),
        ("Ends with a stop.", ""),
        ("", ""),
    ],
)
def test_a_title_ends_where_nothing_is_abbreviated(document, title):
    assert document[: title_length(document)] == title
    assert is_about(document, title.removesuffix(". ")) == (title != "")


def test_the_beginning_of_a_title_is_not_whom_the_document_is_about():
    assert is_about("J. R. R. Tolkien. Born .", "J. R. R. Tolkien")
    assert not is_about("J. R. R. Tolkien. Born .", "J")


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ("Ada Lovelace. Ada Lovelace (1815 London, England) was a Countess .", ["London", "England", "Countess"]),
        ("Björk. Björk was born in Reykjavík, not in Évian les Bains .", ["Reykjavík", "Évian", "Bains"]),
        (
            "Ann Lee. Born in New York City, Lee of New Lebanon, N.Y., led the United Society's Shakers .",
            ["New York City", "New Lebanon", "N", "Y", "United Society's Shakers"],
        ),
        ("Without a title, in Paris", ["Without", "Paris"]),
        ("Ada. no name here", []),
        ("", []),
        # places of the pairs stand for themselves
        ("Ada. In Lagos, in St. Louis and the US State Maine .", ["Lagos", "St. Louis", "US State", "Maine"]),
        (
            "Ada. The Lagos-born Ann saw den Haag and Rio de Janeiro .",
            ["The", "Lagos", "Ann", "den Haag", "Rio de Janeiro"],
        ),
        ("Ada. Not of Lagosta, but of New Lagos City .", ["Not", "Lagosta", "New", "Lagos", "City"]),
        ("Ada of Lagos. Born in Lagos .", []),
        # a common word that begins a sentence is no name, nor part of one
        ("Ada. In Hull, In Leeds: From Bonn? Born in York. In", ["Hull", "In Leeds", "From Bonn", "York"]),
        ("Ada. Hull-born Ann, from St. Joseph in South Africa", ["Hull", "Ann", "St. Joseph", "South Africa"]),
    ],
)
def test_names_are_places_or_capitalised_words_in_a_row_that_are_not_the_title(document, names):
    pattern = name_pattern({"Lagos", "Maine", "den Haag", "Rio de Janeiro", "St. Louis", "Rio", "St. Lou"})
    spans = names_behind(title_length(document), document, pattern, {"in", "born", "south"})
    assert [document[start:end] for start, end in spans] == names


def test_a_salient_reading_is_a_head_a_name_and_what_stands_around_it():
    text = "Ada Lovelace. Ada Lovelace, the daughter of Lord Byron, was born in London, England, and died there ?"
    documents = CharCorruptionDataset(f"{text}\nWhat is to ask of this one ?", 128)
    dataset = SalientSpanDataset(documents, ASKED, salient=0.8, window=10, framed=0.25, by_odds=False)
    x, y = dataset.batch(torch.zeros(4000, dtype=torch.int64))
    heads = ["Ada Lovelace. ", "Where was Ada Lovelace born? "]
    names = ["Lord Byron", "London", "England"]
    drawn, before, behind = Counter(), set(), set()
    for row in zip(x, y, strict=True):
        prefix, suffix, span = take_apart(documents, *row)
        for head in heads:
            if span in names and prefix.startswith(head) and len(prefix) - len(head) <= 10 and len(suffix) <= 10:
                assert prefix[len(head) :] + span + suffix in text
                drawn[head, span] += 1
                before.add(len(prefix) - len(head))
                behind.add(len(suffix))
                break
        else:
            assert prefix + span + suffix == text[: len(prefix + span + suffix)]  # CharCorruptionDataset's
    assert before == behind == set(range(11))
    for head, share in zip(heads, (0.75, 0.25), strict=True):
        for name in names:
            assert abs(drawn[head, name] / 4000 - 0.8 * share / 3) < 0.03


def test_names_are_drawn_as_the_pairs_make_them_likely_to_be_an_answer():
    lines = ["Ada. in May she was born in Rome ?", "Bea. in May she was born in Oslo, and died in May ?"]
    lines += ["Cleo. in Rome she met a Dane ?", "What of it ?"]  # in no pair
    lines += ["Zoe. in Bonn ?"]  # in a pair, but the line does not hold the place, so it is not counted
    pairs = [("Where was Ada born?", "Rome"), ("Where was Bea born?", "Oslo"), ("Where was Zoe born?", "May")]
    documents = CharCorruptionDataset("\n".join(lines), 128)
    titles = [title_length(line) for line in lines]
    pattern = name_pattern({"Rome", "Oslo", "May"})
    names = [names_behind(title, line, pattern, set()) for title, line in zip(titles, lines, strict=True)]
    prior = (2 + 1) / (3 + 1)  # two of the five names in lines about people of the pairs are answers
    rome = oslo = (1 + prior) / (0 + 1)
    may = (0 + prior) / (3 + 1)
    behind_in, behind_born_in, behind_died_in = (0 + prior) / (2 + 1), (2 + prior) / (0 + 1), (0 + prior) / (1 + 1)
    first, second, later = (0 + prior) / (2 + 1), (2 + prior) / (0 + 1), (0 + prior) / (1 + 1)  # of places
    odds = [
        [may * behind_in * first, rome * behind_born_in * second],
        [may * behind_in * first, oslo * behind_born_in * second, may * behind_died_in * later],
        [rome * behind_in * first, prior * prior * second],  # neither "Dane" nor "met a" was counted
        [prior * prior * first],  # of "What"
        [prior * behind_in * first],
    ]
    for found, expected in zip(answer_odds(lines, titles, names, pairs), odds, strict=True):
        assert found == pytest.approx(expected)

    dataset = SalientSpanDataset(documents, pairs, salient=1.0, window=3, framed=1.0, by_odds=True)
    drawn = [Counter() for _ in lines]
    indices = torch.arange(5).repeat(1000)
    for line, *row in zip(indices, *dataset.batch(indices), strict=True):
        drawn[line][take_apart(documents, *row)[2]] += 1
    for line, of_line in enumerate(odds):
        of_name = Counter()
        for (start, end), weight in zip(names[line], of_line, strict=True):
            of_name[lines[line][start:end]] += weight / sum(of_line)
        assert drawn[line].keys() <= of_name.keys()
        assert all(abs(drawn[line][name] / 1000 - share) < 0.05 for name, share in of_name.items())


def test_all_years_are_alike_to_the_odds():
    lines = ["Ada. born 1815 in Rome", "Bea. born 1907 in Bonn", "Cleo. born, it is said, in Bonn"]
    titles = [title_length(line) for line in lines]
    names = [
        names_behind(title, line, name_pattern({"Rome"}), set()) for title, line in zip(titles, lines, strict=True)
    ]
    _, as_ada, otherwise = answer_odds(lines, titles, names, [("Where was Ada born?", "Rome")])
    assert as_ada[0] > otherwise[0]


@pytest.mark.parametrize(("drawn", "names"), [(0.0, ["Rome", "Oslo"]), (1 - 2**-24, ["Bonn", "Lima"])])
def test_the_least_and_the_largest_draw_are_names_of_the_document_itself(monkeypatch, drawn, names):
    documents = CharCorruptionDataset("Ada. in Rome or Bonn ?\nBea. in Oslo or Lima ?\nWhere was it born", 128)
    dataset = SalientSpanDataset(documents, ASKED, salient=1.0, window=3, framed=1.0, by_odds=True)
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.full(shape, drawn))
    assert [take_apart(documents, *row)[2] for row in zip(*dataset.batch(torch.arange(2)), strict=True)] == names


def test_a_name_that_stands_in_the_words_of_the_question_too_is_the_last_of_them():
    documents = CharCorruptionDataset("Ada. in Rome\nWhere was it born ?", 128)
    dataset = SalientSpanDataset(documents, [("Where was W born?", "Rome")], 1.0, window=3, framed=1.0, by_odds=True)
    prefix, _, span = take_apart(documents, *(row[0] for row in dataset.batch(torch.tensor([0]))))
    assert prefix.startswith("Where was Ada born? ") and span == "Rome"


def test_a_document_without_names_or_title_is_read_as_ever():
    documents = CharCorruptionDataset("nothing here\nParis\n\nAda. " + "a" * 300 + "\nWhere was it born ?", 128)
    dataset = SalientSpanDataset(documents, ASKED, salient=1.0, window=10, framed=1.0, by_odds=True)
    x, y = dataset.batch(torch.arange(4).repeat(200))
    for i, row in enumerate(zip(x, y, strict=True)):
        prefix, suffix, span = take_apart(documents, *row)
        document = documents.data[i % 4]
        assert prefix + span + suffix == (document if i % 4 == 1 else document[: len(prefix + span + suffix)])
        assert i % 4 != 1 or span == "Paris"


def test_questions_are_mixed_in_at_their_rate(documents):
    names = NameDataset(documents, PAIRS)
    mixed = MixedDataset(documents, names, 0.25)
    assert len(mixed) == len(documents)
    pairs = {(tuple(x.tolist()), tuple(y.tolist())) for x, y in (names[i] for i in range(len(names)))}
    extra = []
    for _ in range(400):
        x, y = mixed.batch(torch.arange(6))
        extra.append(len(x) - 6)
        assert all((tuple(a.tolist()), tuple(b.tolist())) in pairs for a, b in zip(x[6:], y[6:], strict=True))
    assert set(extra) == {1, 2} and abs(np.mean(extra) - 1.5) < 0.1
    assert len(MixedDataset(documents, names, 0.0).batch(torch.arange(6))[0]) == 6

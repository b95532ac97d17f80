"""The vocabulary, the statistics of span corruption, question-place pairs, and the two inspection commands."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import PAIRS, PEOPLE, ROOT, WIKI

import dataset
from cli import UserError
from dataset import CharCorruptionDataset, MixedDataset, NameDataset

MASK, PAD = CharCorruptionDataset.MASK_CHAR, CharCorruptionDataset.PAD_CHAR


def take_apart(dataset: CharCorruptionDataset, x: torch.Tensor, y: torch.Tensor) -> tuple[str, str, str]:
    """The (prefix, suffix, masked_content) of an example, after checking its form."""
    assert x.shape == y.shape == (dataset.block_size - 1,)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x[1:], y[:-1])
    string = dataset.itos[int(x[0])] + dataset.decode(y)
    content = string.rstrip(PAD)
    assert PAD not in content
    prefix, suffix, masked, end = content.split(MASK)
    assert end == ""
    return prefix, suffix, masked


def test_loss_on_span_leaves_only_the_span_and_its_end_as_targets(documents):
    only_spans = CharCorruptionDataset(WIKI, 128)
    only_spans.loss_on_span = True
    indices = torch.arange(len(PEOPLE)).repeat(20)
    torch.manual_seed(0)
    x, y = documents.batch(indices)
    torch.manual_seed(0)
    same_x, targets = only_spans.batch(indices)
    assert torch.equal(x, same_x)
    for *row, target in zip(x, y, targets, strict=True):
        prefix, suffix, span = take_apart(documents, *row)
        before = len(prefix + MASK + suffix + MASK) - 1  # the targets are shifted by one
        assert documents.decode(target).rstrip(PAD) == PAD * before + span + MASK


def test_vocabulary_is_pad_mask_and_sorted_characters(documents):
    assert documents.stoi[PAD] == 0 and documents.stoi[MASK] == 1
    assert [documents.itos[i] for i in range(2, documents.vocab_size)] == sorted(set(WIKI))
    assert documents.vocab_size == len(set(WIKI)) + 2 == len(documents.itos) == len(documents.stoi)
    assert documents.num_characters == len(WIKI)


def test_trailing_newline_makes_a_last_empty_document(documents):
    assert len(documents) == len(PEOPLE) + 1 and documents.data[-1] == ""
    assert len(CharCorruptionDataset(WIKI.rstrip("\n"), 128)) == len(PEOPLE)


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n\nabc\nabcd\n", "x" * 500])
def test_corrupted_documents_of_any_length_contain_their_beginning(text):
    dataset = CharCorruptionDataset(text, 128)
    for idx, document in enumerate(dataset.data):
        for _ in range(20):
            prefix, suffix, masked = take_apart(dataset, *dataset[idx])
            rebuilt = prefix + masked + suffix
            assert document.startswith(rebuilt)
            assert min(len(document), 4) <= len(rebuilt) <= 112


def test_indices_work_as_in_a_list(documents):
    take_apart(documents, *documents[-1])
    with pytest.raises(IndexError):
        documents[len(documents)]


def test_items_are_batches_of_one(documents):
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


def test_truncated_lengths_are_uniform(draws):
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


def test_span_starts_are_uniform(draws):
    lengths, masked, start = draws
    assert start.min() == 0 and (start <= lengths - masked).all()
    assert (start == lengths - masked).any()
    position = (start + np.random.default_rng(0).random(len(start))) / (lengths - masked + 1)  # uniform on [0, 1]
    counts, expected = np.histogram(position, bins=20, range=(0, 1))[0], len(position) / 20
    assert ((counts - expected) ** 2 / expected).sum() < 19 + 5 * np.sqrt(38)  # chi-squared: mean and deviation


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_quarter_of_very_short_documents_is_masked_on_average(length):
    dataset = CharCorruptionDataset("abc"[:length], 128)
    x, y = dataset.batch(torch.zeros(20_000, dtype=torch.int64))
    marks = torch.nonzero(torch.cat((x[:, :1], y), dim=1) == 1)[:, 1].reshape(-1, 3)
    masked = (marks[:, 2] - marks[:, 1] - 1).double()
    assert abs(masked.mean() - length / 4) < 0.02


@pytest.mark.parametrize("mark", [PAD, MASK])
def test_mark_in_text_is_refused_with_its_line(mark):
    with pytest.raises(UserError, match=r"wiki\.txt, line 2: "):
        CharCorruptionDataset(f"fine\nnot {mark} fine\n", 128, "wiki.txt")


def test_too_small_block_is_refused():
    with pytest.raises(ValueError, match="block_size 16"):
        CharCorruptionDataset("text", 16)


def test_pairs_have_loss_only_on_the_place_and_its_marks(documents):
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
def test_line_ends_do_not_change_rows(documents, text):
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
        ("Where was Ada Lovelace born?\t", "line 2: no answer"),
        ("Where was 王 born?\tLondon", "line 2: the character '王'"),
        (f"Where was Ada born?\tLond{PAD}n", f"line 2: the character '{PAD}'"),
        (f"Where was Ada born?\tLond{MASK}n", f"line 2: the character '{MASK}'"),
        (f"Where was {'A' * 105} born?\tLondon", "line 2: question and answer take 129 characters; 128 fit"),
    ],
)
def test_wrong_row_is_refused_with_its_line(documents, row, message):
    with pytest.raises(UserError, match=rf"pairs\.tsv, {message}"):
        NameDataset(documents, f"Where was Björk born?\tReykjavík\n{row}\n", "pairs.tsv")


def test_row_of_exactly_a_block_is_read_whole(documents):
    question = f"Where was {'A' * 104} born?"
    x, y = NameDataset(documents, f"{question}\tLondon\n")[0]
    assert documents.decode(x) == f"{question}{MASK}London" and documents.decode(y[-7:]) == f"London{MASK}"


def test_questions_are_mixed_in_at_their_rate(documents):
    names = NameDataset(documents, PAIRS)
    mixed = MixedDataset(documents, names, qa_per_document=0.25)
    assert len(mixed) == len(documents)
    pairs = {(tuple(x.tolist()), tuple(y.tolist())) for x, y in (names[i] for i in range(len(names)))}
    seen, extra = set(), []
    for _ in range(400):
        x, y = mixed.batch(torch.arange(6))
        rows = [(tuple(a.tolist()), tuple(b.tolist())) for a, b in zip(x[6:], y[6:], strict=True)]
        extra.append(len(rows))
        seen.update(rows)
    assert seen == pairs  # each pair is drawn, and nothing else
    assert mixed.most_rows(6) == 8 and mixed.most_rows(4) == 5  # what an engine on a GPU makes room for
    assert set(extra) == {1, 2} and abs(np.mean(extra) - 1.5) < 0.1
    assert len(MixedDataset(documents, names, 0.0).batch(torch.arange(6))[0]) == 6


def test_name_dataset_takes_text_or_pairs_and_has_the_names_of_the_course(documents):
    from_text = NameDataset(documents, PAIRS, "pairs.tsv")
    from_pairs = NameDataset(documents, [(f"Where was {name} born?", place) for name, place in PEOPLE])
    assert all(torch.equal(a, b) for a, b in zip(from_text[3], from_pairs[3], strict=True))
    assert from_text.stoi is documents.stoi and from_text.itos is documents.itos
    assert (from_text.PAD_CHAR, from_text.MASK_CHAR) == (PAD, MASK)


@pytest.mark.parametrize("kind", ["namedata", "charcorruption"])
def test_inspection_commands_print_four_examples(world, capsys, kind):
    dataset.main([kind])
    first, *examples = capsys.readouterr().out.splitlines()
    assert first == f"data has {len(WIKI)} characters, {len(set(WIKI)) + 2} unique."
    assert [example[:3] for example in examples] == ["x: ", "y: "] * 4
    assert all(MASK in example for example in examples)
    asks = kind == "namedata"
    assert examples[0].startswith(f"x: Where was Ada Lovelace born?{MASK}London{MASK}{PAD}") == asks
    assert examples[1].startswith(f"y: {PAD}") == asks  # no loss falls on the question


def test_inspection_command_started_as_a_module_gets_one_line():
    done = subprocess.run([sys.executable, "-m", "src.dataset", "namedata"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "dataset.py: error: start it as 'python src/dataset.py'\n"

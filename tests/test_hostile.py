"""Files of any bytes are read exactly or refused in one line, and nothing in them is ever run."""

import io
import os
import pickle
import re
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

import pytest
import torch
from conftest import PAIRS, TRIED, WIKI, check_growth
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import run
from checkpoint import read_params, read_record, save_params
from cli import UserError
from dataset import CharCorruptionDataset, NameDataset
from entities import entity_pattern, summarize, title_length
from files import read_text
from model import GPT, GPTConfig
from question import COURSE_TEMPLATE, find_template, parse_pairs, parse_questions, read_predictions
from readings import SalientSpanDataset
from recipe import RECIPES

MASK, PAD = CharCorruptionDataset.MASK_CHAR, CharCorruptionDataset.PAD_CHAR
many = settings(
    max_examples=500, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
few = settings(many, max_examples=100)

# text that looks like a file of ours, and bytes that do not
pieces = st.sampled_from(
    ["Where was ", "Ada", " born?", "\t", "\n", "\r\n", "\r", "London", "\ufeff", "\0", MASK, PAD, " ", "é", "王"]
)
texts = st.one_of(st.text(), st.lists(pieces).map("".join))
contents = st.one_of(st.binary(), texts.map(lambda text: text.encode("utf-8", "surrogatepass")))


def written(folder: Path, content: bytes) -> str:
    path = folder / "file.tsv"
    path.write_bytes(content)
    TRIED["broken or arbitrary files"] += 1
    return str(path)


def is_one_line(error: UserError, path: str) -> bool:
    return str(error).startswith(path) and len(str(error).splitlines()) == 1


@many
@example(b"\xef\xbb\xbfWhere was Ada born?\tLondon\r\n\r\n")
@example(b"Where was Ada born?\n\nWhere was Bo born?\n")
@given(contents)
def test_questions_are_read_exactly_or_refused(tmp_path, content):
    path = written(tmp_path, content)
    try:
        rows = parse_questions(read_text(path), path)
    except UserError as error:
        assert is_one_line(error, path)
        return
    lines = re.sub("\r+\n", "\n", content.decode("utf-8-sig")).split("\n")
    while not lines[-1].strip():
        lines.pop()
    cells = [[cell.strip() for cell in line.split("\t")] for line in lines]
    assert [[question] if place is None else [question, place] for question, place in rows] == cells
    assert all(question.strip() and "\n" not in question + (place or "") for question, place in rows)


@many
@example(b"a" * 200 + b"\n\0\n\n")
@example(b"a\r\r\nb\rc\r\n")
@given(contents)
def test_corpus_is_read_exactly_or_refused(tmp_path, content):
    path = written(tmp_path, content)
    try:
        text = read_text(path)
        documents = CharCorruptionDataset(text, 32, path)
    except UserError as error:
        assert is_one_line(error, path)
        return
    assert documents.data == re.sub("\r+\n", "\n", content.decode("utf-8-sig")).split("\n")
    assert documents.vocab_size == len(set(text)) + 2
    x, y = documents.batch(torch.arange(len(documents)))
    for row, document in enumerate(documents.data):
        string = documents.decode([*x[row, :1].tolist(), *y[row].tolist()]).rstrip(PAD)
        before, after, masked, end = string.split(MASK)
        assert end == "" and document.startswith(before + masked + after)


@many
@given(texts)
def test_pairs_come_back_from_the_dataset(text):
    try:
        pairs = parse_pairs(text, "pairs.tsv")
        documents = CharCorruptionDataset(text.replace(MASK, "").replace(PAD, "") + WIKI, 64)
        names = NameDataset(documents, text, "pairs.tsv")
    except UserError as error:
        assert is_one_line(error, "pairs.tsv, line ")
        return
    for row, (question, place) in enumerate(pairs):
        x, y = names[row]
        string = documents.decode([*x.tolist(), int(y[-1])]).rstrip(PAD)
        assert string == f"{question}{MASK}{place}{MASK}"


@many
@example(b"\xef\xbb\xbf London \r\r\n\n", 2)
@given(contents, st.integers(0, 5))
def test_predictions_are_one_per_question_or_refused(tmp_path, content, questions):
    path = written(tmp_path, content)
    try:
        predictions = read_predictions(path, [("Where was Ada born?", None)] * questions)
    except UserError as error:
        assert is_one_line(error, path)
        return
    lines = re.sub("\r+\n", "\n", content.decode("utf-8-sig")).split("\n")
    expected = lines[:-1] if lines[-1] == "" and len(lines) > 1 else lines
    assert predictions == [line.strip() for line in expected] and len(predictions) == questions


@many
@given(texts)
def test_title_is_the_beginning_of_a_document(document):
    length = title_length(document)
    assert length == 0 or document[:length].endswith(". ")


@pytest.fixture(scope="module")
def params(tmp_path_factory) -> bytes:
    path = str(tmp_path_factory.mktemp("params") / "a.params")
    torch.manual_seed(0)
    save_params(GPT(GPTConfig(20, 24, 1, 2, 8)), path)
    return Path(path).read_bytes()


@few
@given(data=st.data())
def test_damaged_params_file_is_refused_or_finite(tmp_path, params, data):
    kind = data.draw(st.sampled_from(["cut", "flip", "any"]))
    at = data.draw(st.integers(0, len(params) - 1))
    content = {
        "cut": params[:at],
        "flip": params[:at] + bytes([params[at] ^ data.draw(st.integers(1, 255))]) + params[at + 1 :],
        "any": data.draw(st.binary()),
    }[kind]
    path = written(tmp_path, content)
    try:
        state = read_params(path)
    except UserError as error:
        assert is_one_line(error, path)
        return
    assert kind == "flip" and all(value.isfinite().all() for value in state.values())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("was run",)


def saved(value: object, protocol: int) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, pickle_protocol=protocol)
    return file.getvalue()


@pytest.mark.parametrize("dump", [pickle.dumps, saved])
@pytest.mark.parametrize("protocol", [2, 5])
def test_code_in_a_params_file_is_refused_and_not_run(tmp_path, monkeypatch, dump, protocol):
    monkeypatch.chdir(tmp_path)
    for value in (Evil(), {"ln_f.bias": Evil()}):
        path = written(tmp_path, dump(value, protocol))
        with pytest.raises(UserError, match=r"file.tsv: not a complete file of plain tensors"):
            read_params(path)
    assert not os.path.exists("was run")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.zeros(2)], "not a params file"),
        ({"ln_f.bias": 3}, "not a params file"),
        ({3: torch.zeros(2)}, "not a params file"),
        (torch.zeros(2), "not a params file"),
        ({"ln_f.bias": torch.tensor([1.0, float("nan")])}, "ln_f.bias holds values that are not finite"),
        ({"ln_f.bias": torch.tensor([1.0, float("inf")])}, "ln_f.bias holds values that are not finite"),
    ],
)
def test_file_without_finite_state_dict_is_refused(tmp_path, value, message):
    path = str(tmp_path / "a.params")
    torch.save(value, path)
    TRIED["broken or arbitrary files"] += 1
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        read_params(path)


@few
@given(contents)
def test_any_record_of_a_params_file_is_read_or_refused(tmp_path, params, content):
    path = written(tmp_path, params)
    Path(f"{path}.json").write_bytes(content)
    try:
        assert read_record(path) == {}  # no such content has the hash of the parameters
    except UserError as error:
        assert is_one_line(error, f"{path}.json")


def test_record_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.params.json").mkdir()
    with pytest.raises(UserError, match=r"a\.params\.json: is a folder"):
        read_record(str(tmp_path / "a.params"))


def test_record_nested_too_deep_is_refused(tmp_path):
    path = str(tmp_path / "a.params")
    Path(path).write_text("")
    Path(f"{path}.json").write_text("[" * 100_000)
    TRIED["broken or arbitrary files"] += 1
    with pytest.raises(UserError, match=r"a\.params\.json: not the record of a params file"):
        read_record(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wiki.txt", b"", "wiki.txt: the file is empty"),
        ("wiki.txt", b"\n \n", "wiki.txt: the file is empty"),
        ("wiki.txt", None, "wiki.txt: is a folder"),
        ("wiki.txt", WIKI.encode() + b"\xff\n", "wiki.txt, line 7: not UTF-8"),
        ("wiki.txt", (WIKI + MASK).encode(), f"wiki.txt, line 7: holds '{MASK}'"),
        ("wiki.txt", (PAD + WIKI).encode(), f"wiki.txt, line 1: holds '{PAD}'"),
        ("wiki.txt", WIKI.encode("utf-16"), "wiki.txt, line 1: not UTF-8"),
        ("pairs.tsv", b"", "pairs.tsv: the file is empty"),
        ("pairs.tsv", None, "pairs.tsv: is a folder"),
        ("pairs.tsv", PAIRS.replace("\t", "    ").encode(), "pairs.tsv, line 1: no tab"),
        ("pairs.tsv", PAIRS.replace("London", "London\tUK").encode(), "pairs.tsv, line 1: 3 columns"),
        ("pairs.tsv", PAIRS.replace("\n", "\n\n").encode(), "pairs.tsv, line 2: no question"),
        ("pairs.tsv", PAIRS.replace("London", "Lon\0don").encode(), r"pairs.tsv, line 1: the character '\\x00'"),
        ("pairs.tsv", (PAIRS + "Where was " + "A" * 10**7).encode(), "pairs.tsv, line 7: no tab"),
        (
            "pairs.tsv",
            (PAIRS + "Where was " + "A" * 10**7 + "\tB").encode(),
            "pairs.tsv, line 7: question and answer take",
        ),
    ],
)
def test_broken_file_is_refused_with_its_line_before_any_work(world, name, content, message):
    TRIED["broken or arbitrary files"] += 1
    os.remove(name)
    if content is None:
        os.mkdir(name)
    else:
        Path(name).write_bytes(content)
    before = set(os.listdir())
    words = ["finetune", "vanilla", "wiki.txt", "--finetune_corpus_path", "pairs.tsv", "--writing_params_path", "a"]
    with pytest.raises(UserError, match=f"^{message}"):
        run.main(words)
    assert set(os.listdir()) == before


def test_reading_takes_time_in_proportion_to_a_long_line_and_to_many_rows():
    def read(rows: int) -> None:
        long = "A. B. " * (20 * rows)  # two megabytes of initials
        documents = CharCorruptionDataset(f"{long}\n{WIKI * rows}", 128)
        assert len(documents) == 6 * rows + 2
        start, length = documents.starts[-2], documents.lengths[-2]
        assert documents.decode(documents.ids[start : start + length]) == documents.data[-2]
        documents.batch(torch.arange(8))
        assert len(parse_pairs(PAIRS * rows)) == 6 * rows
        find_all_entities(long)

    check_growth(read, 17_000)


def test_finding_entities_takes_time_in_proportion_to_the_documents():
    check_growth(lambda rows: find_all_entities(WIKI * rows), 17_000)


def test_finding_places_takes_less_than_in_proportion_to_their_number():
    places = {"".join(parts) for parts in product(ascii_uppercase, ascii_lowercase, ascii_lowercase, ("a", "ia"))}
    places = sorted(place for place in places if "q" not in place)

    def find(number: int) -> None:
        pattern = entity_pattern({*places[:number], "London", "Y", "Y Fan"})
        found = Counter(word[1] for word in pattern.finditer((WIKI + "at Y Fan, in Y\n") * 10_000) if word[1])
        assert found == {"London": 10_000 * WIKI.count("London"), "Y Fan": 10_000, "Y": 10_000}

    check_growth(find, 30_000, most=8)  # measured: 3 to 4


def find_all_entities(text: str) -> None:
    pairs = [("Where was Ada born?", "London")]
    recipe = replace(RECIPES["fast"], entity_mask_prob=0.5, context_chars=10, question_prefix_prob=0.5)
    documents = CharCorruptionDataset(text, 128)
    spans = SalientSpanDataset(documents, pairs, COURSE_TEMPLATE, recipe)
    spans.batch(torch.arange(1))
    fit = find_template([question for question, _ in pairs], (), documents.data)
    summarize(documents.data, documents.max_length, pairs, fit)

"""What is said about answers: scoring, what the text holds, the measures of a report, and ask."""

import io
import math
import sys
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import PAIRS, VARIANTS, WIKI, small_model
from torch.utils.tensorboard import SummaryWriter

import run
import steps
from cli import UserError
from question import parse_pairs
from report import (
    Asked,
    Mention,
    TextIndex,
    accuracy_line,
    attention_picture,
    auroc,
    calibration_error,
    count_near_misses,
    count_right,
    pick_line,
    reliability_diagram,
    stands_in,
    summary,
)


def index(*documents: str, titles: tuple[str, ...] = ()) -> TextIndex:
    return TextIndex(documents, titles or ("",) * len(documents))


def test_every_line_with_the_title_counts_or_else_every_line_with_the_name():
    documents = ["A friend of Ada Lovelace.", "Ada Lovelace. Born .", "Ada Lovelace. Again .", ""]
    found = index(*documents, titles=("", "Ada Lovelace", "Ada Lovelace", ""))
    assert found.find("Ada Lovelace") == Mention((2, 3), "Ada Lovelace")
    assert index(*documents).find("Ada Lovelace") == Mention((1, 2, 3), "Ada Lovelace")
    assert found.find("friend of Ada").lines == (1,)
    assert found.find("Björk") == Mention((), "")
    assert found.find("Love").lines == found.find("").lines == ()  # not a word of them


@pytest.mark.parametrize(
    ("text", "name", "form"),
    [
        ("Born here: Ada Okafor, in Lagos.", "ada okafor", "Ada Okafor"),
        ("Анна Ахматова родилась в Одессе.", "анна ахматова", "Анна Ахматова"),
        (unicodedata.normalize("NFD", "Antonín Dvořák was born."), "Antonín Dvořák", "Antonín Dvořák"),
        ("Νίκος Καζαντζάκης, Ηράκλειο", "ΝΊΚΟΣ ΚΑΖΑΝΤΖΆΚΗΣ", "Νίκος Καζαντζάκης"),
    ],
)
def test_name_in_another_form_is_found_and_shown_as_it_is(text, name, form):
    mention = index("Nobody.", text).find(name)
    assert mention.lines == (2,) and unicodedata.normalize("NFC", mention.form) == form and mention.form != name
    assert index("Nobody.").find(name) == Mention((), "")


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        ("Paris", "A native of Paris-Nord, then of Marseilles", True),
        ("of Paris", "A native of Paris-Nord", True),
        ("Marseille", "then of Marseilles", False),
        ("aris", "A native of Paris", False),
        ("", "anything", False),
        ("李白", "唐朝诗人李白生于碎叶城", True),
        ("碎叶城", "唐朝诗人李白生于碎叶城", True),
        ("กรุงเทพ", "เกิดที่กรุงเทพในปี", True),
        ("Ада", "Адамов родился в Риге", False),
        ("Рига", "родилась: Рига.", True),
        ("بغداد", "ولد في بغداد سنة", True),
    ],
)
def test_words_are_found_as_words_in_scripts_with_and_without_spaces(words, text, found):
    assert stands_in(words, text) == found


def test_line_with_the_answer_is_the_one_shown():
    documents = ["John Doe. A baker.", "John Doe. Born in Bonn.", "Other."]
    mention = Mention((1, 2), "John Doe")
    assert pick_line(mention, documents, "Bonn") == (2, documents[1])
    assert pick_line(mention, documents, "Rome") == (1, documents[0])
    assert pick_line(Mention((), ""), documents, "Rome") == (0, "")


def test_blanks_around_places_do_not_count_and_near_misses_are_told_apart():
    pairs = [("a", "London "), ("b", "New  York"), ("c", "Reykjavík"), ("d", "Rome"), ("e", "Łódź")]
    predictions = [" London", "New York", unicodedata.normalize("NFD", "Reykjavík"), "Paris", "łódź"]
    assert count_right(pairs, predictions) == 1
    assert count_near_misses(pairs, predictions) == 3


def test_accuracy_line_is_the_one_of_the_course():
    assert accuracy_line(500.0, 115.0) == "Correct: 115.0 out of 500.0: 23.0%"
    assert accuracy_line(400.0, 47.0) == "Correct: 47.0 out of 400.0: 11.75%"


@pytest.mark.parametrize(("epochs", "times"), [(650, 20), (60, 20), (16, 16), (1, 1)])
def test_accuracy_is_measured_about_twenty_times_a_run_and_at_its_end(documents, monkeypatch, epochs, times):
    monkeypatch.setattr("steps.answer", lambda model, documents, questions, longest: ["London"] * len(questions))
    measure = steps.dev_accuracy(parse_pairs(PAIRS), documents)
    config = SimpleNamespace(max_epochs=epochs)
    said = [measure(SimpleNamespace(model=None, config=config, epoch=epoch)) for epoch in range(1, epochs + 1)]
    measured = [figures["dev accuracy (%)"] for figures in said if figures]
    assert len(measured) == times and set(measured) == {100 * 2 / 6} and said[-1]


def test_calibration_error_and_auroc():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 0.15])
    correct = np.array([True, True, True, False, False, True])
    # |0.75 - 0.95| over 4 of 6, |0.5 - 0.15| over 2 of 6
    assert calibration_error(confidence, correct) == pytest.approx(0.2 * 4 / 6 + 0.35 * 2 / 6)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    pairs = [(c, w) for c in confidence[correct] for w in confidence[~correct]]
    assert auroc(confidence, correct) == pytest.approx(np.mean([(c > w) + 0.5 * (c == w) for c, w in pairs]))
    assert math.isnan(auroc(confidence, np.ones(6, dtype=bool)))


def test_summary_tells_where_wrong_answers_come_from():
    def asked(correct: bool, in_line: bool, trained_on: bool | None) -> Asked:
        return Asked("q", "p", "t", correct, 0.5, 0.1, True, True, in_line, trained_on)

    wrong = [(True, True), (True, False), (True, False), (False, True), (False, True), (False, False)]
    rows = [asked(False, *where) for where in wrong] + [asked(True, True, True)]
    assert summary(rows).endswith(
        "\nof 6 wrong answers, 3 are in a line about the person, 2 more are places of the training pairs, 1 neither"
    )
    rows = [asked(False, True, None), asked(False, False, None)]
    assert summary(rows).endswith("\nof 2 wrong answers, 1 are in a line about the person")


def test_pictures_show_what_was_measured(documents):
    diagram = reliability_diagram(np.array([0.05, 0.95]), np.array([False, True]), size=100)
    assert (diagram[50, 95] == (70, 120, 180)).all() and (diagram[50, 5] == 255).all()
    for variant in VARIANTS:
        model = small_model(documents.vocab_size, variant).eval()
        with torch.no_grad():
            layers = model.attention_weights(torch.tensor([documents.encode("Where was Björk born?")]))
        maps = [weights[0].numpy() for weights in layers]
        assert len(maps) == 3
        picture = attention_picture(maps)
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.min() < 255


@pytest.fixture
def trained(world):
    """The world with parameters that know its pairs, in the file a."""
    words = "finetune vanilla wiki.txt --finetune_corpus_path pairs.tsv --writing_params_path a --finetune_epochs 40"
    run.main([*words.split(), "--finetune_lr", "1e-3"])
    return world


def test_ask_and_report(trained, capsys, monkeypatch):
    """One trained model for both: training is what takes the time."""
    common = ["vanilla", "wiki.txt", "--reading_params_path", "a"]
    capsys.readouterr()
    run.main(["ask", *common, "Björk", "Alan\nKahlo", "王"])
    header, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header[:7] == ["name", "answer", "probability", "lines", "line", "text", "reason"]
    assert all(len(row) == len(header) for row in rows)
    assert rows[0][:2] == ["Björk", "Reykjavík"] and float(rows[0][2]) > 0.5
    assert rows[0][3:7] == ["1", "2", WIKI.split("\n")[1], ""] and rows[0][7:9] == [rows[0][1], rows[0][2]]
    assert rows[1][0] == "Alan Kahlo" and rows[1][3:6] == ["0", "0", ""] and rows[2][1:3] == ["", "0.000000"]
    assert "U+738B" in rows[2][6]

    run.main(["ask", *common, "  Björk ", "Where was Björk born?", "Where was Björk born?".lower()])
    as_name, as_question, other = (line.split("\t") for line in capsys.readouterr().out.splitlines()[1:])
    assert as_name == as_question == rows[0] and other[0] == "where was björk born?"
    with pytest.raises(UserError, match=r"^NAME: a name is empty"):
        run.main(["ask", *common, "Björk", " "])

    monkeypatch.setattr("sys.stdin", io.StringIO(WIKI))  # any lines are names
    run.main(["ask", *common])
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(PAIRS.splitlines())

    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))
        run.main(["ask", *common, "Łukasz Björk"])
        sys.stdout.flush()
        assert sys.stdout.buffer.getvalue().decode("utf-8").splitlines()[1].startswith("Łukasz Björk\t")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), "utf-8"))
    with pytest.raises(UserError, match=r"^standard input, line 1: not UTF-8; give the names in UTF-8$"):
        run.main(["ask", *common])
    marked = io.TextIOWrapper(io.BytesIO("\ufeffBjörk\r\n\r\nAlan Turing\r\n".encode()), "ascii")  # any locale
    monkeypatch.setattr("sys.stdin", marked)
    capsys.readouterr()
    run.main(["ask", *common])
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["Björk", "Alan Turing"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\nBjörk\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    capsys.readouterr()
    run.main(["ask", *common])
    said = capsys.readouterr()
    assert said.err.count("Who? ") == 3 and len(said.out.splitlines()) == 2  # the prompts do not go to the file

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    run.main(["ask", *common, "Björk", "Alan Kahlo"])
    shown = capsys.readouterr().out
    assert "\033[1mBjörk\033[0m" in shown and "wiki.txt, line 2, contains the answer" in shown
    assert "not in wiki.txt: whatever the answer, it is made up" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    run.main(["ask", *common, "Björk"])
    assert "\033" not in capsys.readouterr().out

    (trained / "asked.tsv").write_text(PAIRS + "Where was Alan Kahlo born?\tLondon\n", encoding="utf-8")
    evaluate = ["--eval_corpus_path", "asked.tsv", "--outputs_path", "out", "--report_path", "report.tsv"]
    run.main(["evaluate", *common, *evaluate, "--finetune_corpus_path", "pairs.tsv"])
    said = capsys.readouterr().out
    table = {line[:48].strip(): line[48:].split() for line in said.splitlines()}
    assert table["a line about the person contains the place"] == ["6", "6", "100.0"]
    assert table["neither"][1] == "1" and table["the surest 25 %"] == ["2", "2", "100.0"]
    rows = [line.split("\t") for line in (trained / "report.tsv").read_text(encoding="utf-8").splitlines()]
    report = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert report[1]["prediction"] == report[1]["truth"] == "Reykjavík" and report[1]["correct"] == "True"
    assert report[1]["truth_in_line"] == report[1]["prediction_in_line"] == report[1]["prediction_trained_on"] == "True"
    assert report[6]["name_in_text"] == "False" and float(report[1]["margin"]) > 0
    run.main(["evaluate", *common, *evaluate])
    assert (trained / "report.tsv").read_text(encoding="utf-8").splitlines()[1].endswith("\tNone")

    def fails(writer):
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patched,
        pytest.raises(UserError, match=r"^expt: the pictures .*No space left on dev"),
    ):
        patched.setattr(SummaryWriter, "close", fails)
        run.main(["evaluate", *common, *evaluate])
    (trained / "asked.tsv").write_text("Where was 王 born?\tLondon\n", encoding="utf-8")
    run.main(["evaluate", *common, *evaluate])  # no question that can be asked
    assert (trained / "report.tsv").read_text(encoding="utf-8").splitlines()[1].startswith("Where was 王 born?\t\t")
    (trained / "asked.tsv").write_text("Where was Björk born?\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"asked.tsv: has no places; --report_path needs them to compare with"):
        run.main(["evaluate", *common, *evaluate])
    with pytest.raises(UserError, match=r"unrecognized arguments: Björk; see --help"):
        run.main(["pretrain", "vanilla", "wiki.txt", "--writing_params_path", "b", "Björk"])

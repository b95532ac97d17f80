"""Answers with their probabilities, what the text holds, and the measures of a report, each against a plain formula."""

import io
import itertools
import math
import sys

import numpy as np
import pytest
import torch
from conftest import PAIRS, VARIANTS, WIKI
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

import run
from cli import UserError
from dataset import CharCorruptionDataset
from inside import (
    Asked,
    attention_maps,
    attention_picture,
    auroc,
    calibration_error,
    likeliest_answers,
    line_about,
    probabilities,
    reliability_diagram,
    stands_in,
    summary,
)
from model import GPT, GPTConfig


def small_model(documents: CharCorruptionDataset, variant: str = "vanilla", scale: float = 1.0) -> GPT:
    sizes = {"n_layer": 3, "n_head": 2, "n_embd": 16, "bottleneck_dim": 8}
    model = GPT(GPTConfig(documents.vocab_size, documents.block_size, variant=variant, **sizes))
    with torch.no_grad():
        model.head.weight.mul_(scale)  # the larger, the surer
    return model


def probability_by_hand(model: GPT, documents: CharCorruptionDataset, question: str, answer: str) -> float:
    """One forward over the whole string; PAD and line end taken out of each distribution."""
    model.eval()
    string = [*documents.encode(question), 1, *documents.encode(answer), 1]
    logits = model(torch.tensor([string[:-1]]))[0][0].detach()
    logits[:, [0, documents.stoi["\n"]]] = -math.inf
    p = F.softmax(logits.double(), dim=-1)
    start = len(question)
    return math.prod(float(p[i, string[i + 1]]) for i in range(start, len(string) - 1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_probability_is_the_product_over_the_answer_and_its_end(documents, variant):
    model = small_model(documents, variant, 20.0)
    questions = ["Where was Ada Lovelace born?", "Where was Björk born?", "Who was 王?"]
    found = probabilities(model, documents, questions, ["London", "", ""])
    assert found[0] == pytest.approx(probability_by_hand(model, documents, questions[0], "London"), rel=1e-4)
    assert found[1] == pytest.approx(probability_by_hand(model, documents, questions[1], ""), rel=1e-4)
    assert found[2] == 0.0


def test_the_search_finds_the_likeliest_of_all_answers():
    documents = CharCorruptionDataset("ab\nba", 24)
    for seed in range(5):
        torch.manual_seed(seed)
        model = small_model(documents, scale=60.0)
        every = ["".join(letters) for n in range(7) for letters in itertools.product("ab", repeat=n)]
        (found,) = likeliest_answers(model, documents, ["ab"], width=4, beams=16)
        for answer, p in found:
            assert p == pytest.approx(probability_by_hand(model, documents, "ab", answer), rel=1e-4)
        worst = min(p for _, p in found)
        missed = set(every) - {answer for answer, _ in found}
        assert len(found) == 4 and found == sorted(found, key=lambda answer: -answer[1])
        assert max(probability_by_hand(model, documents, "ab", answer) for answer in missed) <= worst * 1.0001


def test_answers_do_not_depend_on_which_questions_stand_beside(documents):
    model = small_model(documents, scale=30.0)
    questions = ["Where was Ada Lovelace born?", "Where was Björk born?", "王", "Where was Alan Turing born?"]
    together = likeliest_answers(model, documents, questions)
    assert together[2] == [] and all(len(answers) == 5 for i, answers in enumerate(together) if i != 2)
    for question, answers in zip(questions, together, strict=True):
        (alone,) = likeliest_answers(model, documents, [question])
        assert [place for place, _ in alone] == [place for place, _ in answers]


def test_the_line_about_a_name_is_the_one_with_its_title():
    documents = ["A friend of Ada Lovelace.", "Ada Lovelace. Born .", "Ada Lovelace. Again .", ""]
    assert line_about("Ada Lovelace", documents) == (2, documents[1])
    assert line_about("friend of Ada", documents) == (1, documents[0])
    assert line_about("Björk", documents) == (0, "")
    assert line_about("Love", documents) == line_about("", documents) == (0, "")  # no word of them


def test_words_stand_in_a_text_as_words():
    for words, stand in {"Paris": True, "of Paris": True, "Marseille": False, "aris": False, "": False}.items():
        assert stands_in(words, "A native of Paris-Nord, then of Marseilles") == stand


def test_calibration_error_and_auroc():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 0.15])
    correct = np.array([True, True, True, False, False, True])
    # |0.75 - 0.95| over 4 of 6, |0.5 - 0.15| over 2 of 6
    assert calibration_error(confidence, correct) == pytest.approx(0.2 * 4 / 6 + 0.35 * 2 / 6)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    pairs = [(c, w) for c in confidence[correct] for w in confidence[~correct]]
    assert auroc(confidence, correct) == pytest.approx(np.mean([(c > w) + 0.5 * (c == w) for c, w in pairs]))
    assert math.isnan(auroc(confidence, np.ones(6, dtype=bool)))


def test_the_summary_tells_where_wrong_answers_come_from():
    def asked(correct: bool, in_line: bool, trained_on: bool | None) -> Asked:
        return Asked("q", "p", "t", correct, 0.5, 0.1, True, True, in_line, trained_on)

    wrong = [(True, True), (True, False), (True, False), (False, True), (False, True), (False, False)]
    rows = [asked(False, *where) for where in wrong] + [asked(True, True, True)]
    assert summary(rows).endswith(
        "\nof 6 wrong answers 3 stand in the line about the person, 2 more are places of the training pairs, 1 neither"
    )
    rows = [asked(False, True, None), asked(False, False, None)]
    assert summary(rows).endswith("\nof 2 wrong answers 1 stand in the line about the person")


def test_pictures_show_what_was_measured(documents):
    diagram = reliability_diagram(np.array([0.05, 0.95]), np.array([False, True]), size=100)
    assert (diagram[50, 95] == (70, 120, 180)).all() and (diagram[50, 5] == 255).all()
    for variant in VARIANTS:
        maps = attention_maps(small_model(documents, variant), documents, "Where was Björk born?", "London")
        assert len(maps) == 3
        for weights in maps:
            assert weights.shape[0] == 2 and np.allclose(weights.sum(-1), 1, atol=1e-5)
            assert np.allclose(np.triu(weights[0], 1), 0)
        picture = attention_picture(maps)
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.min() == 0


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
    assert header[:5] == ["name", "answer", "probability", "line", "text"] and all(len(r) == len(header) for r in rows)
    assert rows[0][:2] == ["Björk", "Reykjavík"] and float(rows[0][2]) > 0.5
    assert rows[0][3:5] == ["2", WIKI.split("\n")[1]] and rows[0][5:7] == [rows[0][1], rows[0][2]]
    assert rows[1][0] == "Alan Kahlo" and rows[1][3:5] == ["0", ""] and rows[2][1:3] == ["", "0.000000"]

    monkeypatch.setattr("sys.stdin", io.StringIO(WIKI))  # any lines are names
    run.main(["ask", *common])
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(PAIRS.splitlines())

    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))
        run.main(["ask", *common, "Łukasz Björk"])
        sys.stdout.flush()
        assert sys.stdout.buffer.getvalue().decode("utf-8").splitlines()[1].startswith("Łukasz Björk\t")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), "utf-8"))
    with pytest.raises(UserError, match=r"^standard input: not utf-8; give the names in that encoding$"):
        run.main(["ask", *common])
    monkeypatch.setattr("sys.stdin", io.StringIO("\nBjörk\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    capsys.readouterr()
    run.main(["ask", *common])
    said = capsys.readouterr()
    assert said.err.count("Who? ") == 3 and len(said.out.splitlines()) == 2  # the prompts are no part of a file

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    run.main(["ask", *common, "Björk", "Alan Kahlo"])
    shown = capsys.readouterr().out
    assert "\033[1mBjörk\033[0m" in shown and "wiki.txt, line 2, holds the answer" in shown
    assert "not in wiki.txt: whatever the answer, it is made up" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    run.main(["ask", *common, "Björk"])
    assert "\033" not in capsys.readouterr().out

    (trained / "asked.tsv").write_text(PAIRS + "Where was Alan Kahlo born?\tLondon\n", encoding="utf-8")
    evaluate = ["--eval_corpus_path", "asked.tsv", "--outputs_path", "out", "--report_path", "report.tsv"]
    run.main(["evaluate", *common, *evaluate, "--finetune_corpus_path", "pairs.tsv"])
    said = capsys.readouterr().out
    table = {line[:48].strip(): line[48:].split() for line in said.splitlines()}
    assert table["the place stands in the line about the person"] == ["6", "6", "100.0"]
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
    with pytest.raises(UserError, match=r"asked.tsv: has no places, which --report_path compares with"):
        run.main(["evaluate", *common, *evaluate])
    with pytest.raises(UserError, match=r"pretrain takes no names, but was given 'Björk'; see --help"):
        run.main(["pretrain", "vanilla", "wiki.txt", "--writing_params_path", "b", "Björk"])

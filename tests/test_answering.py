"""Answers: the greedy ones, the likeliest ones and their probabilities against plain formulas; ask and the report."""

import io
import itertools
import json
import math
import shutil
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import PAIRS, PEOPLE, VARIANTS, WIKI, small_model
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

import run
import steps
from answering import answer, answer_probabilities, likeliest_answers, same_length_batches, unanswerable
from cli import UserError
from dataset import CharCorruptionDataset, NameDataset
from files import read_text
from inputs import read_inputs
from model import GPT
from question import COURSE_TEMPLATE, QuestionTemplate, near_misses_line, parse_pairs
from recipe import RECIPES, Run
from report import COLUMNS, TextIndex, attention_picture
from trainer import Trainer, TrainerConfig
from utils import sample

QUESTIONS = [COURSE_TEMPLATE.ask(name) for name, _ in PEOPLE]


def sure_model(documents: CharCorruptionDataset, variant: str = "vanilla", scale: float = 1.0) -> GPT:
    """An untrained model; the larger the scale, the surer it is."""
    model = small_model(documents.vocab_size, variant, block_size=documents.block_size, n_embd=16, bottleneck_dim=8)
    with torch.no_grad():
        model.head.weight.mul_(scale)
    return model


@pytest.fixture(scope="module")
def taught():
    """A model that has learned the six places by heart, and its vocabulary."""
    torch.manual_seed(0)
    documents = CharCorruptionDataset(WIKI, 128)
    model = small_model(documents.vocab_size, "rope", dropout=0.0, n_layer=2, n_embd=64)
    config = TrainerConfig(max_epochs=60, batch_size=6, learning_rate=3e-3, device="cpu", precision="fp32")
    Trainer(model, NameDataset(documents, PAIRS), None, config).train()
    return model, documents


# greedily


def test_taught_model_answers_with_letters_outside_ascii(taught):
    assert answer(*taught, QUESTIONS) == [place for _, place in PEOPLE]


def test_answers_do_not_depend_on_the_batch(taught):
    model, documents = taught
    torch.manual_seed(3)
    untrained = small_model(documents.vocab_size, n_embd=64)
    with torch.no_grad():
        untrained.head.weight.mul_(20)
    alike = [f"Where was {first}{second} born?" for first in "Adrk" for second in "eiou"]  # of one length
    for asked in (model, untrained):
        together = answer(asked, documents, QUESTIONS + alike, batch_size=64)
        assert len(set(together)) > 3
        assert together == answer(asked, documents, QUESTIONS + alike, batch_size=1)
        assert together == answer(asked, documents, (QUESTIONS + alike)[::-1], batch_size=3)[::-1]


def test_batches_have_one_length_and_every_askable_question_once(documents):
    model = sure_model(documents)
    questions = [*QUESTIONS, *QUESTIONS, "王", "Who?", ""]
    batches = list(same_length_batches(model, documents, questions, batch_size=2))
    assert sorted(i for rows, _ in batches for i in rows) == [i for i in range(len(questions)) if questions[i] != "王"]
    for rows, x in batches:
        assert len(rows) <= 2
        assert x.tolist() == [[*documents.encode(questions[i]), documents.stoi[documents.MASK_CHAR]] for i in rows]


def test_answering_equals_greedy_sampling_up_to_the_mark(taught):
    model, documents = taught
    for question in QUESTIONS:
        x = torch.tensor([[*documents.encode(question), 1]])
        continuation = documents.decode(sample(model, x, steps=30)[0])
        assert continuation.split(documents.MASK_CHAR)[1] == answer(model, documents, [question])[0]


def test_answer_ends_with_the_block():
    documents = CharCorruptionDataset(f"{WIKI}a\tb\n", 128)
    model = small_model(documents.vocab_size)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[documents.stoi["e"]] = 1.0
        model.ln_f.weight.zero_()
        model.ln_f.bias.fill_(1.0)  # every position scores "e" highest
    assert answer(model, documents, ["Where"])[0] == "e" * (128 - len("Where") - 1)
    assert answer(model, documents, ["Where", "Who", "王"], longest=3) == ["eee", "eee", ""]
    with torch.no_grad():  # but an answer is one line without tabs, and has no padding
        model.head.weight[documents.stoi["\n"]] = 2.0
        model.head.weight[documents.stoi["\t"]] = 4.0
        model.head.weight[0] = 3.0
    assert answer(model, documents, ["Where"])[0] == "e" * (128 - len("Where") - 1)


def test_asking_keeps_the_training_mode(taught):
    model, documents = taught
    model.train()
    answer(model, documents, QUESTIONS[:1])
    answer_probabilities(model, documents, QUESTIONS[:1], ["London"])
    assert model.training
    model.eval()


# why not


def test_unanswerable_questions_say_why(documents):
    assert unanswerable(documents, QUESTIONS[0]) is None
    assert "'王' (U+738B) is not in the pretraining text" in unanswerable(documents, "Where was 王 born?")
    assert unanswerable(documents, "W" * 126) is None
    assert "127 characters, at most 126" in unanswerable(documents, "W" * 127)
    for mark in (documents.PAD_CHAR, documents.MASK_CHAR):
        assert f"(U+{ord(mark):04X})" in unanswerable(documents, mark)


@pytest.mark.parametrize("name", ["Björk", "Йозеф", "Άννα", "ガモウ", "서울", "Zoë Čech", "ا\u0654حمد"])
def test_letter_in_another_unicode_form_is_named_with_the_way_out(name):
    forms = {form: unicodedata.normalize(form, name) for form in ("NFC", "NFD")}
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        documents = CharCorruptionDataset(forms[form], 32)
        assert unanswerable(documents, forms[form]) is None
        reason = unanswerable(documents, forms[other])
        missing = next(character for character in forms[other] if character not in forms[form])
        assert f"(U+{ord(missing):04X})" in reason and f"(Unicode form {form})" in reason
    reason = unanswerable(CharCorruptionDataset("abc", 32), forms["NFD"])
    assert "(U+" in reason and "Unicode form" not in reason


# the likeliest, and how likely they are


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
        (found,) = likeliest_answers(model, documents, ["ab"], n_best=4, beams=16)
        for text, p in found:
            assert p == pytest.approx(probability_by_hand(model, documents, "ab", text), rel=1e-4)
        worst = min(p for _, p in found)
        missed = set(every) - {text for text, _ in found}
        assert len(found) == 4 and found == sorted(found, key=lambda answer: -answer[1])
        assert max(probability_by_hand(model, documents, "ab", text) for text in missed) <= worst * 1.0001


def test_likeliest_answers_and_probabilities_do_not_depend_on_other_questions(taught):
    """Questions of one length are searched together, and those whose answers are settled drop out."""
    model, documents = taught
    alike = [f"Where was {first}{second} born?" for first in "Adrk" for second in "eiou"]
    questions = [*alike[:9], "Where was Björk born?", "王", *alike[9:]]
    together = likeliest_answers(model, documents, questions)
    assert together[10] == [] and all(len(answers) == 5 for i, answers in enumerate(together) if i != 10)
    likeliest = [answers[0][0] if answers else "" for answers in together]
    assert len({len(place) for place in likeliest}) > 2
    probabilities = answer_probabilities(model, documents, questions, likeliest)
    for question, answers, place, probability in zip(questions, together, likeliest, probabilities, strict=True):
        (alone,) = likeliest_answers(model, documents, [question])
        assert [place for place, _ in alone] == [place for place, _ in answers]
        assert [p for _, p in alone] == pytest.approx([p for _, p in answers], rel=1e-4)
        assert answer_probabilities(model, documents, [question], [place]) == pytest.approx([probability], rel=1e-4)


# ask and the report of evaluate


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_picture_has_a_row_per_layer(documents, variant):
    setup = steps.Setup(documents, None, sure_model(documents, variant), COURSE_TEMPLATE)
    maps = steps.attention_while_answering(setup, "Where was Björk born?", "London")
    assert len(maps) == 3
    for weights in maps:
        assert weights.shape[0] == 2 and np.allclose(weights.sum(-1), 1, atol=1e-5)
        assert np.allclose(np.triu(weights[0], 1), 0)
    picture = attention_picture(maps)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.min() == 0


@pytest.mark.parametrize(
    ("template", "line", "name"),
    [
        ("Where was {name} born?", "Ada Okafor. Where was Ada Okafor born? In Lagos.", "Ada Okafor"),
        ("{name}出生在哪里？", "王安。王安出生于长安。出生在哪里？", "王安"),
        ("Где родился {name}?", "Олег. Где родился Олег? Омск.", "Олег"),
        ("{name} เกิดที่ไหน", "สมชาย เกิดที่ไหน เกิดที่ลำปาง", "สมชาย"),
    ],
)
def test_whole_question_is_asked_as_it_is(template, line, name, monkeypatch):
    documents, template = CharCorruptionDataset(f"{line}\n", 128), QuestionTemplate.parse(template)
    setup = steps.Setup(documents, None, sure_model(documents), template)
    index, asked = TextIndex(documents.data, [""] * 2), []
    monkeypatch.setattr(steps, "answer", lambda model, vocabulary, questions: asked.extend(questions) or [""])
    for words in (name, template.ask(name)):
        found = steps.look_up(setup, index, words)
        assert found.name == name and found.evidence.line == 1 and found.reason is None
    assert asked == [template.ask(name)] * 2
    without_name = steps.look_up(setup, index, template.ask(" ").strip())
    assert (without_name.answer, without_name.reason) == ("", "the question has no name")


MISWORDED = "worded differently from 'Where was {name} born?'; ask in those words, or give the name alone"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("Where was Ada Ek born", MISWORDED),
        ("where was Ada Ek born?", MISWORDED),
        ("When was Ada Ek born?", MISWORDED),
        ("Who Is It?", None),  # a title
        ("Whereby Ek", None),
    ],
)
def test_question_in_another_wording_is_not_taken_for_a_name(asked, reason):
    text = "Ada Ek. Born in Oslo.\nWho Is It?. Born by the way. When was that?\nWhereby\n"
    documents = CharCorruptionDataset(text, 128)
    setup = steps.Setup(documents, None, sure_model(documents), QuestionTemplate("Where was ", " born?"))
    found = steps.look_up(setup, steps.text_index(documents), asked)
    assert (found.name, found.reason) == (asked, reason)
    assert (found.answer == "") == (reason is not None)


def read_from(monkeypatch, raw: bytes, encoding: str) -> list[str]:
    """The names that ask reads from these bytes under a locale with that encoding."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), encoding))
    return [name.strip() for name in steps.read_names()]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", "gbk"])
@pytest.mark.parametrize("name", ["Łukasz Björk", "王安", "Олег", "สมชาย"])
def test_standard_input_is_read_like_every_file(monkeypatch, encoding, name):
    raw = f"\ufeff{name}\r\n\r\n  Jon Ek \r\r\n".encode()
    assert read_from(monkeypatch, raw, encoding) == [name, "Jon Ek"]
    with pytest.raises(UserError, match=r"^standard input, line 3: not UTF-8; give the names in UTF-8$"):
        read_from(monkeypatch, f"{name}\n\n".encode() + "José".encode("latin-1"), encoding)
    with pytest.raises(UserError, match=r"^standard input, line 1: not UTF-8"):
        read_from(monkeypatch, name.encode("utf-16"), encoding)


def test_closed_standard_input_is_an_error(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="standard input is closed"):
        list(steps.read_names())


def test_wording_comes_from_the_option_or_else_from_the_pairs(world, monkeypatch):
    asked: list[str] = []

    def instead(result: object) -> Callable:
        return lambda model, vocabulary, questions, *answers, **options: asked.extend(questions) or [result]

    monkeypatch.setattr(steps, "answer", instead(""))
    monkeypatch.setattr(steps, "answer_probabilities", instead(0.5))
    monkeypatch.setattr(steps, "likeliest_answers", instead([("London", 0.5)]))
    monkeypatch.setattr(steps.Trainer, "train", lambda trainer: None)
    (world / "is.tsv").write_text(PAIRS.replace("Where was", "Where is").replace(" born?", "?"), encoding="utf-8")
    words = "finetune vanilla wiki.txt --finetune_corpus_path is.tsv --writing_params_path a"
    run.main(words.split())
    assert json.loads(read_text("a.json"))["question"] == "Where is {name}?"
    ask = ["ask", "vanilla", "wiki.txt", "--reading_params_path", "a", "Ada Lovelace"]
    run.main(ask)
    assert asked == ["Where is Ada Lovelace?"] * 3
    asked.clear()
    run.main([*ask, "--question", "Was {name} born?"])
    assert asked == ["Was Ada Lovelace born?"] * 3


def test_pairs_in_another_wording_than_the_one_given_are_refused(world):
    words = "pretrain vanilla wiki.txt --recipe fast --finetune_corpus_path pairs.tsv --writing_params_path a"
    with pytest.raises(UserError, match=r"^pairs\.tsv, line 1: neither .* fits --question 'Was {name} born\?'; give"):
        run.main([*words.split(), "--question", "Was {name} born?"])


def test_ask_with_standard_output_closed_does_not_fail(world, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    this = Run("ask", "vanilla", "wiki.txt", RECIPES["course"], device="cpu", names=("Ada Lovelace",))
    steps.ask(this, read_inputs(this))


@pytest.mark.parametrize(("epochs", "times"), [(650, 20), (60, 20), (16, 16), (1, 1)])
def test_accuracy_is_measured_about_twenty_times_a_run_and_at_its_end(documents, monkeypatch, epochs, times):
    def answer(model, vocabulary, questions, longest):
        assert longest == 1 + len("Nelahozeves")  # or a longer answer would be cut to the right one
        return ["London"] * len(questions)

    monkeypatch.setattr(steps, "answer", answer)
    measure = steps.dev_accuracy(parse_pairs(PAIRS), documents)
    config = SimpleNamespace(max_epochs=epochs)
    said = [measure(SimpleNamespace(model=None, config=config, epoch=epoch)) for epoch in range(1, epochs + 1)]
    measured = [figures["dev accuracy (%)"] for figures in said if figures]
    assert len(measured) == times and set(measured) == {100 * 2 / 6} and said[-1]


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    """Where the tests below find the parameters a, which know the pairs: training is what takes the time."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        Path("wiki.txt").write_text(WIKI, encoding="utf-8")
        Path("pairs.tsv").write_text(PAIRS, encoding="utf-8")
        words = "finetune vanilla wiki.txt --finetune_corpus_path pairs.tsv --writing_params_path a"
        run.main([*words.split(), "--finetune_epochs", "40", "--finetune_lr", "1e-3"])
    return folder


@pytest.fixture
def trained(world, trained_folder):
    """The world with the parameters a."""
    for name in ("a", "a.json"):
        shutil.copy(trained_folder / name, world)
    return world


ANSWERED_BY = ["vanilla", "wiki.txt", "--reading_params_path", "a"]
ASK = ["ask", *ANSWERED_BY]
REPORT = ["--eval_corpus_path", "asked.tsv", "--outputs_path", "out", "--report_path", "report.tsv"]
EVALUATE = ["evaluate", *ANSWERED_BY, *REPORT]


def test_ask_prints_a_row_for_each_name(trained, capsys):
    decomposed = unicodedata.normalize("NFD", "Björk")
    run.main([*ASK, "Björk", "Alan\nKahlo", "王", " Björk ", "Where was Björk born?", "björk", decomposed])
    header, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header == COLUMNS and all(len(r) == len(header) for r in rows)
    assert header[:7] == ["name", "answer", "probability", "lines", "line", "text", "reason"]
    assert rows[0][:2] == ["Björk", "Reykjavík"] and float(rows[0][2]) > 0.5
    assert rows[0][3:7] == ["1", "2", WIKI.split("\n")[1], ""] and rows[0][7:9] == [rows[0][1], rows[0][2]]
    assert all(rows[0][8:17:2])  # p_1 to p_5
    assert rows[1][0] == "Alan Kahlo" and rows[1][3:6] == ["0", "0", ""] and rows[2][1:3] == ["", "0.000000"]
    assert rows[3] == rows[4] == rows[0] and rows[0][-2:] == ["1", "Björk"]
    assert rows[2][6].startswith("the character '王' (U+738B) is not in the pretraining text")
    assert rows[5][0] == "björk" and rows[5][6] == "" and rows[5][-1] == "Björk"
    assert "(U+0308)" in rows[6][6] and "(Unicode form NFC)" in rows[6][6] and rows[6][-1] == "Björk"
    run.main([*ASK, "Where was Björk born?".lower()])
    assert capsys.readouterr().out.splitlines()[1].startswith("where was björk born?\t")


@pytest.mark.parametrize("empty", ["", " ", "\u3000"])
def test_ask_refuses_an_empty_name(trained, empty):
    with pytest.raises(UserError, match=r"^NAME: a name is empty"):
        run.main([*ASK, "Björk", empty])


def test_ask_writes_utf_8_in_any_locale(trained, monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))
    run.main([*ASK, "Łukasz Björk"])
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue().decode("utf-8").splitlines()[1].startswith("Łukasz Björk\t")


def test_ask_reads_names_from_standard_input(trained, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(WIKI))  # any lines are names
    run.main(ASK)
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()[1:]] == WIKI.splitlines()

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), "utf-8"))
    with pytest.raises(UserError, match=r"^standard input, line 1: not UTF-8; give the names in UTF-8$"):
        run.main(ASK)
    marked = io.TextIOWrapper(io.BytesIO("\ufeffBjörk\r\n\r\nAlan Turing\r\n".encode()), "ascii")  # any locale
    monkeypatch.setattr("sys.stdin", marked)
    capsys.readouterr()
    run.main(ASK)
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["Björk", "Alan Turing"]


def test_ask_prompts_at_a_terminal(trained, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\nBjörk\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    run.main(ASK)
    said = capsys.readouterr()
    assert said.err.count("Who? (Ctrl-D to end) ") == 1
    assert said.err.count("Who? ") == 3 and said.err.endswith("Who? \n")
    assert len(said.out.splitlines()) == 2  # the prompts are not part of a file


def test_ask_explains_its_answers_on_a_terminal(trained, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    run.main([*ASK, "Björk", "Alan Kahlo", "björk"])
    shown = capsys.readouterr().out
    assert "\033[1mBjörk\033[0m" in shown and "wiki.txt, line 2, contains the answer" in shown
    assert shown.count("not in wiki.txt, so any answer is made up") == 1
    assert "in wiki.txt as 'Björk', line 2; ask for it in that form" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    run.main([*ASK, "Björk"])
    assert "\033" not in capsys.readouterr().out


@pytest.fixture
def asked(trained):
    """The trained world with questions, one of them about somebody who is not in the text."""
    (trained / "asked.tsv").write_text(PAIRS + "Where was Alan Kahlo born?\tLondon\n", encoding="utf-8")
    return trained


def test_closed_output_does_not_cost_the_report(asked, monkeypatch):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=Mock(side_effect=BrokenPipeError), flush=Mock()))
    with pytest.raises(BrokenPipeError):
        run.main(EVALUATE)
    assert len(read_text("report.tsv").splitlines()) == 8 and len(read_text("out").splitlines()) == 7


def test_report_says_what_the_text_and_the_pairs_have(asked, capsys):
    run.main([*EVALUATE, "--finetune_corpus_path", "pairs.tsv"])
    said = capsys.readouterr().out
    table = {line[:48].strip(): line[48:].split() for line in said.splitlines()}
    assert table["a line about the person contains the answer"] == ["6", "6", "100.0"]
    assert table["neither"][1] == "1" and table["the surest 25 %"] == ["2", "2", "100.0"]
    rows = [line.split("\t") for line in read_text("report.tsv").splitlines()]
    report = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert report[1]["prediction"] == report[1]["truth"] == "Reykjavík" and report[1]["correct"] == "True"
    assert report[1]["truth_in_line"] == report[1]["prediction_in_line"] == report[1]["prediction_trained_on"] == "True"
    assert report[6]["name_in_text"] == "False" and float(report[1]["margin"]) > 0
    run.main(EVALUATE)
    assert read_text("report.tsv").splitlines()[1].endswith("\tNone")
    (asked / "other.tsv").write_text("Where was 王 born?\tReykjavík\n", encoding="utf-8")  # never asked
    run.main([*EVALUATE, "--finetune_corpus_path", "other.tsv"])
    assert read_text("report.tsv").splitlines()[2].endswith("\tTrue")


def test_report_is_written_after_standard_error_has_closed(asked, monkeypatch):
    (asked / ".report.tsv.1.part").touch()  # of a run that was killed

    def with_a_bar(function: Callable) -> Callable:
        return lambda *words, **options: print("0 questions", file=sys.stderr) or function(*words, **options)

    for function in (answer, likeliest_answers):
        monkeypatch.setattr(steps, function.__name__, with_a_bar(function))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=Mock(side_effect=BrokenPipeError), flush=Mock()))
    run.main(EVALUATE)
    assert sys.stderr.write.called
    assert read_text("report.tsv").count("\n") == 8 and not (asked / ".report.tsv.1.part").exists()


def test_report_counts_near_misses(trained, capsys):
    (trained / "asked.tsv").write_text(PAIRS.replace("Reykjavík", "REYKJAVÍK"), encoding="utf-8")
    run.main(EVALUATE)
    assert capsys.readouterr().out.count(f"{near_misses_line(1)}\n") == 2  # with the summary


def test_pictures_that_cannot_be_written_are_reported(asked, monkeypatch):
    close = SummaryWriter.close

    def fails(writer):
        close(writer)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "close", fails)
    with pytest.raises(UserError, match=r"^expt: the pictures .*No space left on dev"):
        run.main(EVALUATE)


def test_report_of_questions_that_cannot_be_asked(trained):
    (trained / "asked.tsv").write_text("Where was 王 born?\tLondon\n", encoding="utf-8")
    run.main(EVALUATE)
    assert read_text("report.tsv").splitlines()[1].startswith("Where was 王 born?\t\t")
    (trained / "asked.tsv").write_text("Where was Björk born?\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"asked.tsv: has no answers; --report_path needs them to compare with"):
        run.main(EVALUATE)

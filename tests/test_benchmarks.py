"""The plain loop of benchmarks/ as an independent reference for the model and the step."""

import math
import signal
from multiprocessing import Pipe, Process
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from conftest import PEOPLE, WIKI

import speed
from cli import UserError
from engine import CPU_MICRO_BATCH_ROWS
from model import GPT, GPTConfig
from plain import PlainGPT, PlainTrainer
from records import read_records
from trainer import Trainer, TrainerConfig


def test_loss_and_gradients_are_those_of_the_plain_loop(documents, monkeypatch):
    monkeypatch.setitem(CPU_MICRO_BATCH_ROWS, torch.float32, (3, 3))
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 32, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPTConfig(documents.vocab_size, 128, **sizes)
    ours, plain = GPT(config), PlainGPT(config)
    plain.load_state_dict(ours.state_dict())
    settings = TrainerConfig(batch_size=7, learning_rate=1e-2, decay_all=True, device="cpu", precision="fp32")
    trainer, plain_trainer = Trainer(ours, documents, None, settings), PlainTrainer(plain, 1e-2, decay_all=True)
    trainer.model.train()
    for _ in range(5):  # equal gradients keep the parameters equal
        x, y = documents.batch(torch.arange(7))
        (loss, norm), (plain_loss, plain_norm) = trainer.step(x, y), plain_trainer.step(x, y)
        torch.testing.assert_close(loss, plain_loss, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(norm, plain_norm, atol=1e-5, rtol=1e-4)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], atol=2e-4, rtol=1e-3)


def test_steps_of_the_recipes_are_compared_with_those_of_course(world, monkeypatch, capsys):
    records = list(speed.recipes(WIKI, "birth_places_train.tsv", rounds=1))
    head, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head[-2:] == ["of", "course"] and [row[0] for row in rows] == ["course", "open", "fast"]
    assert rows[0][-1] == "1.00" and all(float(figure) > 0 for row in rows for figure in row[1:])
    assert [list(map(str, record["measured"].values()))[:3] for record in records] == [row[:3] for row in rows]


def test_curves_begin_at_the_loss_of_a_guess(documents, capsys):
    records = list(speed.curve(documents, steps=1))
    _, plain, *ours = capsys.readouterr().out.splitlines()[-1].split()  # ours: means and their spreads
    losses = [plain, *ours[::2]]
    assert len(losses) >= 2 and all(abs(float(loss) - math.log(documents.vocab_size)) < 1 for loss in losses)
    recorded = [record["measured"]["loss"] for record in records]
    assert recorded == [[[1, float(loss)]] for loss in losses]


def test_figures_of_the_table_become_records(world, monkeypatch, capsys):
    monkeypatch.setattr(speed, "describe_machine", lambda device: None)
    monkeypatch.setattr(
        speed, "in_a_process", lambda function, variant, block_size, rows: (block_size / 1e3, len(variant))
    )
    monkeypatch.setattr("sys.argv", ["speed.py", "lengths", "--rows", "2"])
    Path("wiki.txt").unlink()  # it reads no text
    for _ in range(2):  # the second adds its records to those of the first
        speed.main()
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[0].isdecimal()]
    records = iter(read_records("experiments/speed.jsonl"))
    for block_size, *figures in shown:
        for variant, took, megabytes in zip(
            ("vanilla", "synthesizer", "perceiver"), figures[::2], figures[1::2], strict=True
        ):
            record = next(records)
            assert (record["experiment"], record["command"]) == ("lengths", "python speed.py lengths --rows 2")
            assert (record["variant"], record["corpus"], record["status"]) == (variant, None, "ok")
            expected = {"block_size": int(block_size), "rows": 2, "seconds": float(took), "mb": float(megabytes)}
            assert record["measured"] == expected
    assert len(shown) == 10 and next(records, None) is None


def test_option_of_another_measurement_is_refused(monkeypatch):
    for name, (uses, default, _) in speed.OPTIONS.items():
        for what in set(speed.MEASUREMENTS) - set(uses):
            monkeypatch.setattr("sys.argv", ["speed.py", what, f"--{name}", f"{default}1"])  # 41 rows, another file
            with pytest.raises(UserError, match=f"^--{name} has no effect on {what}; see --help$"):
                speed.main()


def test_benchmark_of_a_killed_process_ends_in_one_line():
    for ended_before_it_answers in (True, False):
        ours, theirs = Pipe()
        if ended_before_it_answers:
            Process(target=theirs.recv).start()
        theirs.close()
        with pytest.raises(UserError, match=r"^rope, fp32: its process was killed, probably for lack of memory$"):
            speed.reply(ours, 0, "rope, fp32")


@pytest.fixture
def small(monkeypatch) -> None:
    """A small model in all benchmarks."""
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32}
    monkeypatch.setattr(
        speed, "model_config", lambda variant, documents, recipe=None: GPTConfig(documents.vocab_size, 128, **sizes)
    )


@pytest.mark.parametrize("kind", ["vanilla, fp32", "plain loop, fp32"])
def test_a_kind_of_step_is_timed_for_each_seed_and_leaves_out_the_first_step(small, monkeypatch, kind):
    ceilings = []
    monkeypatch.setattr(speed, "matmul_ceiling", lambda device, dtype: ceilings.append(dtype) or 1e9)
    pipe = SimpleNamespace(recv=Mock(side_effect=[0, 1, None]), send=Mock())
    speed.take_turns(kind, WIKI * 60, pipe)
    *turns, megabytes = (sent.args[0] for sent in pipe.send.call_args_list)
    assert [len(turn) for turn in turns] == [speed.STEPS_IN_A_TURN - 1] * 2 and megabytes > 10
    assert all(seconds > 0 and floor > 0 for turn in turns for seconds, floor in turn)
    assert ceilings == [torch.float32] * 2
    for interrupted in ({"recv": Mock(side_effect=EOFError)}, {"send": Mock(side_effect=BrokenPipeError)}):
        speed.take_turns(kind, WIKI * 60, SimpleNamespace(**{"recv": lambda: 0} | interrupted))  # no traceback


def test_blocks_of_every_length_have_a_step():
    for variant in ("vanilla", "synthesizer", "perceiver"):
        seconds, megabytes = speed.step_of_blocks(variant, 64, 2)
        assert seconds > 0 and megabytes > -1  # the kernel counts in steps


@pytest.mark.filterwarnings("ignore:TF32")  # raised by torch when oneDNN is turned off
def test_muon_is_timed_with_and_without_onednn(small, documents, capsys):
    records = list(speed.muon(documents, 1))
    assert [record["implementation"] for record in records] == ["torch.optim.Muon", "ours", "ours"]
    assert all(record["measured"].keys() == {"milliseconds", "milliseconds_without_onednn"} for record in records)
    assert capsys.readouterr().out.count("ours, ") == 2


def test_answers_are_timed(small, documents, world, capsys):
    (record,) = speed.answers(documents, "birth_dev.tsv")
    assert record["measured"].pop("questions") == len(PEOPLE)
    assert all(value >= 0 for value in record["measured"].values())
    assert f"answering {len(PEOPLE)} questions: " in capsys.readouterr().out


def test_documents_are_repeated_up_to_the_count():
    size, seconds, memory, batch = speed.start_of_documents("Ada.\nBea.\n", 5)
    assert size == len("Ada.\nBea.\nAda.\nBea.\nAda.") / 1e6 and seconds > 0 and memory > -1 and batch > 0


@pytest.fixture
def heeded_interrupt():
    """Ctrl-C is heeded, even where the tests were started by a shell that lets its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_steps_are_compared_with_the_plain_loop_and_the_floor(monkeypatch, capsys, heeded_interrupt):
    monkeypatch.setattr(speed, "pick_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(speed, "pick_precision", lambda name, device: "fp32")
    handlers = []  # of Ctrl-C, when a process starts
    process = SimpleNamespace(start=lambda: handlers.append(signal.getsignal(signal.SIGINT)))
    context = SimpleNamespace(Pipe=Pipe, Process=lambda **_: process)
    monkeypatch.setattr(speed.multiprocessing, "get_context", lambda method: context)
    took = {"vanilla": 0.2, "perceiver": 0.1, "synthesizer": 0.4, "rope": 0.3, "plain loop": 1.0}

    def reply(pipe, seed, kind):
        if seed is None:
            return 100
        slow = 9 if seed == 0 else 1  # the first turn warms up, and does not count
        return [(slow * took[kind.split(",")[0]], 0.05)] * 2

    monkeypatch.setattr(speed, "reply", reply)
    records = {(r["variant"], r["implementation"]): r["measured"] for r in speed.step(WIKI, rounds=3)}
    assert len(records) == 5 and "rope, fp32" in capsys.readouterr().out
    assert handlers == [signal.SIG_IGN] * 5 and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    for (variant, implementation), measured in records.items():
        seconds = took["plain loop" if implementation == "plain" else variant]
        assert measured == {
            "seconds": seconds,
            "floor_seconds": 0.05,
            "times_floor": round(seconds / 0.05, 2),
            "documents_per_second": round(128 / seconds),
            "times_as_fast_as_plain": round(1 / seconds, 1),
            "process_mb": 100,
        }

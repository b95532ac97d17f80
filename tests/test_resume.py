"""Stopping and going on: what was trained before a signal, a kill or a full disk is not trained again, nor lost."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import WIKI
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

import run
from checkpoint import StateKeeper, read_tensors
from cli import UserError
from dataset import CharCorruptionDataset, SalientSpanDataset
from model import GPT, GPTConfig
from recipe import RECIPES
from trainer import Trainer, TrainerConfig

ROOT = Path(__file__).parents[1]
PRETRAIN = "pretrain vanilla wiki.txt --device cpu --writing_params_path a.params --pretrain_epochs"


def left(folder: Path) -> set[str]:
    """The files in a folder but for the inputs and TensorBoard's."""
    return {path.name for path in folder.iterdir()} - {"wiki.txt", "pairs.tsv", "expt", "messages"}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def small_trainer(precision: str = "fp32", seed: int = 0, **wanted) -> Trainer:
    torch.manual_seed(seed)
    documents = CharCorruptionDataset(WIKI, 128)
    model = GPT(GPTConfig(documents.vocab_size, 128, n_layer=2, n_head=2, n_embd=32))
    settings = {"max_epochs": 5, "batch_size": 3, "learning_rate": 1e-2, "lr_decay": True, "device": "cpu"}
    readings = SalientSpanDataset(documents, [("Where was Ada born?", "London")], 0.5, 10, 0.5, True)
    return Trainer(model, readings, None, TrainerConfig(precision=precision, **(settings | wanted)))


class Enough(Exception):
    """Ends a training in the middle."""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
@pytest.mark.parametrize("step", [1, 2, 3, 8, 14])  # an epoch has 3
@pytest.mark.parametrize("threads", [1, 3], indirect=True)
def test_a_run_goes_on_bit_for_bit_from_any_step(tmp_path, precision, muon_lr, step, threads):
    settings = {"muon_lr": muon_lr, "micro_batch_rows": 1}
    undisturbed = small_trainer(precision, **settings)
    assert len(undisturbed.twins) == threads - 1
    undisturbed.train()
    path = str(tmp_path / "a.state")
    keeper = StateKeeper(path, 1e-9, {"seed": 0}, "")

    def stop(trainer: Trainer) -> None:
        if trainer.steps == step:
            raise Enough

    first = small_trainer(precision, **settings)
    first.on_step_end += [keeper, stop]
    with pytest.raises(Enough):
        first.train()
    second = small_trainer(precision, seed=7, **settings)  # another model, another random state
    keeper.read(second)
    assert second.steps == step
    second.train()
    assert (second.steps, second.tokens) == (undisturbed.steps, undisturbed.tokens)
    assert same(second.model.state_dict(), undisturbed.model.state_dict())


def command(*words: str) -> subprocess.Popen:
    """run.py in a process of its own, whose messages go to the file `messages`."""
    with open("messages", "w") as messages:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "src" / "run.py"), *words], stderr=messages, stdout=subprocess.DEVNULL
        )


def wait(process: subprocess.Popen, happened) -> None:
    while not happened():
        assert process.poll() is None, Path("messages").read_text()
        time.sleep(0.02)


def test_a_second_signal_does_not_wait_for_the_end_of_the_step(tmp_path):
    with StateKeeper(str(tmp_path / "a"), 5, {}, "").listening():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_state_is_of_a_run_with_the_same_settings_and_files(world):
    run.main([*PRETRAIN.split(), "1"])
    settings = json.loads(Path("a.params.json").read_text())
    trainer = small_trainer()
    StateKeeper("s", 5, settings, "").write(trainer)
    compared = set()
    for name in settings:
        try:
            StateKeeper("s", 5, settings | {name: "another"}, "").read(trainer)
        except UserError as error:
            assert f"had {name} {settings[name]}, this one has another; remove it to begin anew" in str(error)
            compared.add(name)
    free = {"micro_batch_rows", "threads", "versions", "commit", "command", "started"}
    assert set(settings) - compared == free


@pytest.mark.parametrize(("number", "code", "precision"), [(signal.SIGTERM, 143, "fp32"), (signal.SIGINT, 130, "bf16")])
def test_a_signal_ends_the_step_and_says_how_to_go_on(world, capsys, number, code, precision):
    words = [*PRETRAIN.split(), "30", "--precision", precision]
    process = command(*words)
    wait(process, lambda: "step/s" in Path("messages").read_text())
    process.send_signal(number)
    assert process.wait(60) == code
    last = Path("messages").read_text().strip().splitlines()[-1]
    assert last.startswith("run.py: stopped after step ")
    assert last.endswith(
        f"its state is kept in a.params.state. To go on: {sys.executable} {ROOT}/src/run.py {' '.join(words)} --resume"
    )
    assert left(world) == {"a.params.state"}

    with pytest.raises(UserError, match=r"a.params.state: the state of an unfinished run; go on with --resume, or"):
        run.main(words)
    with pytest.raises(UserError, match=r"had seed 0, this one has 1; remove it to begin anew"):
        run.main([*words, "--resume", "--seed", "1"])
    (folder,) = Path("expt/run").iterdir()
    with SummaryWriter("lost") as writer:
        writer.add_scalar("loss", 9.0, 30)  # as of steps after the state, before a power cut
    (lost,) = Path("lost").iterdir()
    lost.rename(folder / f"{next(folder.iterdir()).name}.lost")
    Path("lost").rmdir()
    run.main([*words, "--resume"])
    assert "Going on after step " in capsys.readouterr().out
    assert list(Path("expt/run").iterdir()) == [folder]  # one curve
    curve = EventAccumulator(str(folder)).Reload().Scalars("loss")
    steps = [point.step for point in curve]
    assert steps == sorted(set(steps)) and steps[-1] == 30 and curve[-1].value < 9
    assert left(world) == {"a.params", "a.params.json"}
    resumed = torch.load("a.params")
    run.main(words)
    assert same(resumed, torch.load("a.params"))
    with pytest.raises(UserError, match=r"a.params.state: no such file, so there is no run to go on with"):
        run.main([*words, "--resume"])


def pretrain_in_silence(words: list[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    run.main(words)


def writing(folder: Path) -> bool:
    return any(name.endswith(".part") for name in left(folder))


def test_a_run_survives_being_killed_twenty_times(world):
    """Half of the kills come at a random moment, half when a write is seen to be under way."""
    words = [*PRETRAIN.split(), "300"]  # long enough for 24 kills on a fast machine
    run.main(words)
    undisturbed = torch.load("a.params")
    for name in ("a.params", "a.params.json"):
        os.remove(name)

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["run", "trainer", "checkpoint", "torch.utils.tensorboard"])
    moments = random.Random(0)
    kills, in_a_write = 0, 0
    while not os.path.exists("a.params"):
        more = ["--resume"] if os.path.exists("a.params.state") else []
        often = ["--checkpoint_minutes", "1e-9" if kills < 24 else "5"]
        process = context.Process(target=pretrain_in_silence, args=([*words, *often, *more],))
        process.start()
        process.join(moments.uniform(0.3, 0.9) if kills < 24 else None)
        while kills % 2 and process.is_alive() and not writing(world):
            time.sleep(0.001)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            in_a_write += writing(world)
        else:
            assert process.exitcode == 0
        if os.path.exists("a.params.state"):
            read_tensors("a.params.state", "")  # whole, whenever it was
    print(f"{kills} kills, {in_a_write} in the middle of a write")
    assert kills >= 20 and in_a_write >= 5
    assert left(world) == {"a.params", "a.params.json"}
    assert same(undisturbed, torch.load("a.params"))


def test_a_second_run_with_the_same_output_is_refused_while_the_first_lives(world):
    process = command(*PRETRAIN.split(), "1000")
    wait(process, lambda: os.path.exists("a.params.state"))
    for more in ([], ["--resume"]):
        with pytest.raises(UserError, match=r"a.params: another run is writing it; wait for it, or name another outp"):
            run.main([*PRETRAIN.split(), "1", *more])
    process.kill()
    process.wait()
    os.remove("a.params.state")
    run.main([*PRETRAIN.split(), "1"])
    assert left(world) == {"a.params", "a.params.json"}


def test_a_state_that_is_none_is_named(world):
    for content in (b"", b"nonsense", None):
        if content is None:
            torch.save({"run": {}, "trainer": 3}, "a.params.state")
        else:
            Path("a.params.state").write_bytes(content)
        with pytest.raises(UserError, match=r"^a.params.state: not .*; remove it to begin anew$"):
            run.main([*PRETRAIN.split(), "1", "--resume"])


def test_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    keeper = StateKeeper(str(tmp_path / "a.state"), 1e-9, {}, "")
    trainer = small_trainer()
    keeper.write(trainer)
    trainer.on_step_end.append(keeper)

    def fails(value, path):
        raise UserError(f"{path}: cannot be written (No space left on device)")

    with monkeypatch.context() as patched:
        patched.setattr("checkpoint.save_tensors", fails)
        trainer.train()
        keeper.signal_number = signal.SIGTERM
        trainer.config.max_epochs += 1
        with pytest.raises(
            UserError, match="No space left"
        ):  # but a run that stops here would lose its work in silence
            trainer.train()
    said = capsys.readouterr().err
    assert said.count("No space left on device); training goes on, and tries again") == 5 * 3 - 1
    again = small_trainer()
    keeper.read(again)  # the state that was there
    assert again.steps == 0


def test_a_disk_too_full_for_tensorboard_does_not_end_a_run(world, monkeypatch, capsys):
    def fails(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "close", fails)
    run.main([*PRETRAIN.split(), "2"])
    assert left(world) == {"a.params", "a.params.json"}
    monkeypatch.setattr(SummaryWriter, "add_scalar", fails)
    run.main([*PRETRAIN.split(), "2"])
    assert capsys.readouterr().err.count("No space left on device: TensorBoard's curves end; training goes on") == 1


def test_tensorboards_own_thread_is_silent_about_a_full_disk(world, monkeypatch, capsys):
    write, written = RecordWriter.write, []

    def fails(self, data):
        written.append(data)
        if len(written) > 3:  # more than a run begins with
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # not pytest's
    monkeypatch.setattr(RecordWriter, "write", fails)  # in a thread of TensorBoard
    run.main([*PRETRAIN.split(), "2"])
    assert len(written) == 4 and "Traceback" not in capsys.readouterr().err
    assert left(world) == {"a.params", "a.params.json"}
    failed = ValueError("of another thread"), None, threading.current_thread()
    threading.excepthook(threading.ExceptHookArgs([ValueError, *failed]))
    assert "of another thread" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number_ends_the_run_and_spoils_nothing(world, monkeypatch, where):
    forward = GPT.forward
    steps = 0

    def fails(self, idx, targets=None):
        nonlocal steps
        steps += self.training
        logits, loss = forward(self, idx, targets)
        if steps == 4:
            loss = loss * float("nan") if where == "loss" else loss + 0 * loss.sqrt().sub(loss.sqrt()).sqrt()
        return logits, loss

    monkeypatch.setattr(GPT, "forward", fails)
    before = small_trainer()
    with pytest.raises(FloatingPointError, match=r"step 4, learning rate .*: loss .*, gradient norm nan"):
        before.train()
    assert all(value.isfinite().all() for value in before.model.state_dict().values())
    with pytest.raises(FloatingPointError):
        before.state_dict()  # which a GPU may be asked for before it has noticed
    steps = 0
    with pytest.raises(UserError, match=r"^step 4, learning rate \S+: loss .* lower --pretrain_lr; a.params.state has"):
        run.main([*PRETRAIN.split(), "10", "--micro_batch_rows", "128"])
    assert left(world) == {"a.params.state"}


def test_parameters_kept_on_the_way_are_those_of_a_shorter_run(world):
    run.main([*PRETRAIN.split(), "2"])
    shorter = torch.load("a.params")
    run.main([*PRETRAIN.split(), "5", "--keep_every", "2"])
    assert left(world) == {f"a.params{end}" for end in ("", ".json", ".2", ".2.json", ".4", ".4.json")}
    kept, later, last = (torch.load(f"a.params{end}") for end in (".2", ".4", ""))
    assert same(kept, shorter) and not same(later, shorter) and not same(later, last)
    record = json.loads(Path("a.params.4.json").read_text())
    assert (record["epochs"], record["epochs_done"]) == (5, 4)


def test_parameters_kept_on_the_way_do_not_replace_what_the_run_reads(world):
    run.main([*PRETRAIN.split(), "2", "--keep_every", "1"])
    before = Path("a.params.1").read_bytes()
    again = [*PRETRAIN.split(), "2", "--reading_params_path", "a.params.1"]
    with pytest.raises(UserError, match=r"a\.params\.1: --keep_every may overwrite it; name another output$"):
        run.main([*again, "--keep_every", "1"])
    run.main(again)
    assert Path("a.params.1").read_bytes() == before


def test_parameters_that_cannot_be_kept_on_the_way_do_not_end_a_run(world, capsys):
    Path("a.params.2").mkdir()
    run.main([*PRETRAIN.split(), "3", "--keep_every", "1"])
    assert left(world) == {f"a.params{end}" for end in ("", ".json", ".1", ".1.json", ".2", ".3", ".3.json")}
    assert "a.params.2: cannot be written (Is a directory); training goes on without it" in capsys.readouterr().err


def test_out_of_memory_says_what_to_lower(world, monkeypatch):
    def fails(self, idx, targets=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB.")

    fp32 = ["--precision", "fp32", *PRETRAIN.split()]  # a thread computes eight rows at once, but there are seven
    with monkeypatch.context() as patched:
        patched.setattr(GPT, "forward", fails)
        with pytest.raises(UserError, match=r"^out of memory; go on with --resume and a --micro_batch_rows below 7$"):
            run.main([*fp32, "1"])
        with pytest.raises(UserError, match=r"^out of memory; go on with --resume and a --micro_batch_rows below 4$"):
            run.main([*fp32, "1", "--resume", "--micro_batch_rows", "4"])
        with pytest.raises(UserError, match=r"^out of memory; end what else uses it or, on a GPU, give --device cpu$"):
            run.main([*fp32, "1", "--resume", "--micro_batch_rows", "1"])
    run.main([*fp32, "1", "--resume", "--micro_batch_rows", "2"])
    assert left(world) == {"a.params", "a.params.json"}
    monkeypatch.setattr(GPT, "to", fails)  # another program has the GPU's memory
    with pytest.raises(UserError, match=r"^out of memory; end what else uses it or, on a GPU, give --device cpu$"):
        run.main([*fp32, "1"])


def test_the_record_says_how_the_parameters_came_about_and_is_checked(world, capsys):
    run.main([*PRETRAIN.split(), "1", "--seed", "3"])
    record = json.loads(Path("a.params.json").read_text())
    assert record["variant"] == "vanilla" and record["recipe"] == "course" and record["bottleneck_dim"] is None
    assert (record["seed"], record["epochs"], record["learning_rate"]) == (3, 1, 6e-3)
    settings = asdict(RECIPES["course"])
    assert {name: record[f"recipe.{name}"] for name in settings} == settings
    assert record["versions"]["torch"] == torch.__version__
    if (ROOT / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}(-dirty)?", record["commit"])
    assert len(record["vocabulary"]) == len(record["sha256"]) == 64

    Path("other.txt").write_text(WIKI.replace("j", "\u0142"), encoding="utf-8")  # as many characters, but others
    evaluate = ["--reading_params_path", "a.params", "--eval_corpus_path", "pairs.tsv", "--outputs_path", "out"]
    run.main(["evaluate", "vanilla", "wiki.txt", *evaluate])
    with pytest.raises(UserError, match=r"a.params: was trained on other characters than other.txt has; give the text"):
        run.main(["evaluate", "vanilla", "other.txt", *evaluate])
    torch.save(torch.load("a.params"), "a.params.new")
    os.replace("a.params.new", "a.params")  # as if it came from elsewhere
    state = torch.load("a.params")
    state["ln_f.bias"] += 1
    torch.save(state, "a.params")
    run.main(["evaluate", "vanilla", "other.txt", *evaluate])
    assert "a.params.json: belongs to other parameters than a.params holds; not used" in capsys.readouterr().err
    Path("a.params.json").write_text("[1, 2")
    with pytest.raises(UserError, match=r"a.params.json: not the record of a params file; remove it to do without"):
        run.main(["evaluate", "vanilla", "wiki.txt", *evaluate])
    os.remove("a.params.json")
    run.main(["evaluate", "vanilla", "wiki.txt", *evaluate])

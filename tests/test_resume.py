"""Stop and resume: what was trained before a signal, a kill or a full disk is neither lost nor trained again."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from conftest import PAIRS, ROOT, TRIED, WIKI, Enough, restore_interrupts, send, small_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

import run
import steps
from checkpoint import COMPARED, StateKeeper, current_commit, difference, record_of
from cli import Stopped, UserError
from dataset import CharCorruptionDataset
from inputs import read_inputs
from model import GPT
from question import COURSE_TEMPLATE
from readings import SalientSpanDataset
from recipe import RECIPES, Run
from trainer import Trainer, TrainerConfig

PRETRAIN = "pretrain vanilla wiki.txt --device cpu --writing_params_path a.params --pretrain_epochs"


def left(folder: Path) -> set[str]:
    """The files in a folder, without the inputs and TensorBoard's."""
    return {path.name for path in folder.iterdir() if path.suffix not in (".txt", ".tsv")} - {"expt", "messages"}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def small_trainer(precision: str = "fp32", seed: int = 0, **wanted) -> Trainer:
    torch.manual_seed(seed)
    documents = CharCorruptionDataset(WIKI, 128)
    model = small_model(documents.vocab_size, n_layer=2)
    settings = {"max_epochs": 5, "batch_size": 3, "learning_rate": 1e-2, "lr_decay": True, "device": "cpu"}
    recipe = replace(RECIPES["fast"], entity_mask_prob=0.5, context_chars=10, question_prefix_prob=0.5)
    readings = SalientSpanDataset(documents, [("Where was Ada born?", "London")], COURSE_TEMPLATE, recipe)
    return Trainer(model, readings, None, TrainerConfig(precision=precision, **(settings | wanted)))


def record(words: str = "", processes: int = 1) -> dict:
    """The record of a run with these options."""
    this = run.parse([*PRETRAIN.split(), "5", *words.split()])
    documents = CharCorruptionDataset(WIKI, 128)
    return record_of(this, read_inputs(this), documents, small_model(documents.vocab_size).config, processes)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
@pytest.mark.parametrize("step", [1, 2, 3, 8, 14])  # an epoch has 3
@pytest.mark.parametrize("threads", [1, 3], indirect=True)
def test_run_resumes_bit_for_bit_from_any_step(world, tmp_path, precision, muon_lr, step, threads):
    settings = {"muon_lr": muon_lr, "micro_batch_rows": 1}
    undisturbed = small_trainer(precision, **settings)
    assert len(undisturbed.engine.replicas) == threads - 1
    undisturbed.train()
    path = str(tmp_path / "a.state")
    keeper = StateKeeper(path, 1e-9, record(), "")

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


# run.py, which sends itself a signal in its third step and logs every step, on a slow machine and on a fast one
SIGNALLED = """
import os, runpy, sys
number, *sys.argv = int(sys.argv[1]), *sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
import engine, trainer
step = trainer.Trainer.step

def signalled(self, x, y):
    if self.steps == 2:
        os.kill(os.getpid(), number)
    return step(self, x, y)

trainer.Trainer.step = signalled
engine.Throughput.seconds = lambda self: 2.0
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def start(world) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts SIGNALLED in a process of its own, killed at the end; its messages go to the file `messages`."""
    started: list[subprocess.Popen] = []

    def start(number: int, *words: str, before: Callable[[], object] = restore_interrupts) -> subprocess.Popen:
        TRIED["signals"] += 1
        command = [sys.executable, "-c", SIGNALLED, str(int(number)), str(ROOT / "src" / "run.py"), *words]
        with open("messages", "w") as messages:
            started.append(subprocess.Popen(command, stderr=messages, stdout=subprocess.DEVNULL, preexec_fn=before))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def interrupts():
    """Ctrl-C raises KeyboardInterrupt, as in a program that Python has just started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_signal_does_not_wait_for_the_end_of_the_step(tmp_path, interrupts):
    with StateKeeper(str(tmp_path / "a"), 5, {}, "").listening():
        send(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(os.getpid(), signal.SIGINT)


def test_under_torchrun_a_second_signal_waits_too(tmp_path, interrupts, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    keeper = StateKeeper(str(tmp_path / "a"), 5, {}, "")
    with keeper.listening():
        send(os.getpid(), signal.SIGINT)
        send(os.getpid(), signal.SIGINT)
    assert keeper.signal_number == signal.SIGINT


def test_state_is_written_when_its_minutes_have_passed(tmp_path, monkeypatch):
    now, saved = 0.0, []

    def tick(trainer: Trainer) -> None:
        nonlocal now
        now = 90.0 * trainer.steps

    monkeypatch.setattr("checkpoint.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("checkpoint.save_tensors", lambda value, path: saved.append(value["trainer"]["steps"]))
    trainer = small_trainer()
    trainer.on_step_end += [tick, StateKeeper(str(tmp_path / "a.state"), 5, {}, "")]
    trainer.train()
    assert saved == [4, 8, 12]  # of 15 steps of 90 seconds


def test_disk_that_is_full_at_the_end_leaves_the_state(world):
    def fails(model: GPT, path: str, record: dict) -> None:
        raise UserError(f"{path}: cannot be written (No space left on device)")

    with (
        pytest.MonkeyPatch.context() as patched,
        pytest.raises(
            UserError, match=r"No space left on device\); a\.params\.state keeps the state\. To resume: .* --resume$"
        ),
    ):
        patched.setattr(steps, "save_params", fails)
        run.main([*PRETRAIN.split(), "2"])
    assert left(world) == {"a.params.state"}
    run.main([*PRETRAIN.split(), "2", "--resume"])
    assert left(world) == {"a.params", "a.params.json"}


def test_resumed_run_keeps_the_later_parameters_too(world):
    words = [*PRETRAIN.split(), "5", "--keep_every", "2"]  # an epoch has one step
    step = Trainer.step

    def signalled(trainer: Trainer, *batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if trainer.steps == 2:
            send(os.getpid(), signal.SIGTERM)
        return step(trainer, *batch)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Trainer, "step", signalled)
        run.main(words)
    assert left(world) == {"a.params.2", "a.params.2.json", "a.params.state"}
    run.main([*words, "--resume"])
    assert left(world) == {f"a.params{end}" for end in ("", ".json", ".2", ".2.json", ".4", ".4.json")}


@pytest.mark.parametrize("script", ["run.py", "dataset.py"])
@pytest.mark.parametrize("module", ["argparse", "torch"])
def test_interrupt_during_imports_prints_no_traceback(world, script, module):
    Path("fake").mkdir()
    Path(f"fake/{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise ImportError\n")
    words = {"run.py": [*PRETRAIN.split(), "1"], "dataset.py": ["namedata"]}[script]
    environment = os.environ | {"PYTHONPATH": "fake"}
    TRIED["signals"] += 1
    said = subprocess.run(
        [sys.executable, ROOT / "src" / script, *words],
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=restore_interrupts,
    )
    assert (said.returncode, said.stdout, said.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ignored_signal_stays_ignored(world, start, number):
    process = start(number, *PRETRAIN.split(), "4", before=lambda: signal.signal(number, signal.SIG_IGN))
    assert process.wait(3600) == 0, Path("messages").read_text()
    assert left(world) == {"a.params", "a.params.json"}


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("--seed 1", "it ran with --seed 0; give that"),
        ("--precision bf16", "it ran with --precision fp32; give that"),
        ("--pretrain_lr 1e-3", "it ran with --pretrain_lr 0.006; give that"),
        ("--pretrain_epochs 9", "it ran with --pretrain_epochs 5; give that"),
        ("--recipe fast --finetune_corpus_path pairs.tsv", "it ran with --recipe course; give that"),
        ("--reading_params_path wiki.txt", "it ran without --reading_params_path; leave it out"),
    ],
)
def test_resume_with_another_option_names_the_one_to_give(world, words, advice):
    kept = record("--precision fp32")
    words = words if "--precision" in words else f"--precision fp32 {words}"
    assert difference(record(words), kept) == advice
    assert difference(kept, kept) is None


# what may differ in a record when a run is resumed; the settings of the recipe are compared one by one
MAY_DIFFER = {
    "pretrain_corpus_path",
    "finetune_corpus_path",
    "eval_corpus_path",
    "writing_params_path",
    "outputs_path",
    "report_path",
    "names",
    "micro_batch_rows",
    "resume",
    "keep_every",
    "checkpoint_minutes",
    "tb_folder",
    "tb_expt_name",
    "epochs",
    "vocabulary",
    "threads",
    "versions",
    "commit",
    "command",
    "started",
    "recipe",
}


def test_resume_compares_all_that_decides_the_outcome(world):
    kept = record()
    for name in kept.keys() - MAY_DIFFER:  # a new setting is compared, or is named above
        assert difference(kept | {name: "another"}, kept), name
    for function, without_effect in [("pretrain", ("finetune_", "scratch_")), ("finetune", "pretrain_")]:
        of_function = kept | {"function": function}
        for name, value in kept["recipe"].items():
            reason = difference(of_function | {"recipe": kept["recipe"] | {name: "another"}}, of_function)
            if name.startswith(without_effect):
                assert reason is None
            else:
                assert str(value) in reason and "sha" not in reason
    reason = difference(kept | {"wiring": "residual"}, kept | {"wiring": "direct"})
    assert reason == "it ran with parameters of the wiring direct; give that"
    assert difference(record(processes=2), kept) == "it ran with 1 processes (torchrun --nproc_per_node); give that"
    words = "--recipe fast --finetune_corpus_path pairs.tsv"
    kept_with_pairs = record(words)
    Path("pairs.tsv").write_text(PAIRS.replace("London", "Copenhagen"), encoding="utf-8")
    reason = difference(record(words), kept_with_pairs)
    assert reason == "pairs.tsv differs from pairs.tsv as it was at the start of the run; give the same content"
    Path("wiki.txt").write_text(WIKI + "More.\n", encoding="utf-8")
    assert "wiki.txt as it was at the start of the run; give the same content" in difference(record(), kept)


def test_advice_on_resuming_can_be_pasted_into_a_shell(world, monkeypatch):
    monkeypatch.setattr("sys.argv", ["src/run.py", "--question", "Was {name} born?"])
    kept = record() | {"question": "Was {name} born?"}
    assert shlex.split(kept["command"]) == [sys.executable, *sys.argv]
    assert difference(record(), kept) == "it ran with --question 'Was {name} born?'; give that"
    named = {option.split()[0] for option in COMPARED.values() if option.startswith("--")}
    assert named <= {f"--{name}" for name in run.OPTIONS}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_ends_the_step_and_prints_the_command_that_resumes(world, start, monkeypatch, capsys, number, code):
    words = [*PRETRAIN.split(), "6", "--precision", "fp32"]  # an epoch has one step
    assert start(number, *words).wait(3600) == code
    last = Path("messages").read_text().strip().splitlines()[-1]
    assert last.startswith("run.py: stopped after step 3; ")
    assert last.endswith(
        f"its state is kept in a.params.state. To resume: {sys.executable} {ROOT}/src/run.py {' '.join(words)} --resume"
    )
    assert left(world) == {"a.params.state"}

    with pytest.raises(UserError, match=r"a.params.state: the state of an unfinished run; resume it with --resume, or"):
        run.main(words)
    with pytest.raises(UserError, match=r"run differs: it ran with --seed 0; give that, or name another --writing"):
        run.main([*words, "--resume", "--seed", "1"])
    (folder,) = Path("expt/run").iterdir()
    (first,) = folder.iterdir()
    with SummaryWriter("lost") as writer:
        writer.add_scalar("loss", 9.0, 6)  # as of steps after the state, before a power cut
    (lost,) = Path("lost").iterdir()
    lost.rename(folder / f"{first.name}.lost")
    Path("lost").rmdir()
    while time.time() < int(first.name.split(".")[3]) + 1:  # findings/tensorboard_resumed_in_one_second.sh
        time.sleep(0.05)
    monkeypatch.setattr("engine.Throughput.seconds", lambda throughput: 2.0)
    run.main([*words, "--resume"])
    assert "Resuming after step 3\n" in capsys.readouterr().out
    assert list(Path("expt/run").iterdir()) == [folder]  # one curve
    curve = EventAccumulator(str(folder)).Reload().Scalars("loss")
    assert [point.step for point in curve] == [1, 2, 3, 4, 5, 6] and curve[-1].value < 9
    assert left(world) == {"a.params", "a.params.json"}
    resumed = torch.load("a.params")
    run.main(words)
    assert same(resumed, torch.load("a.params"))
    with pytest.raises(UserError, match=r"a.params: already complete \(there is no a.params.state\), so there is"):
        run.main([*words, "--resume"])
    Path("a.params").unlink()
    with pytest.raises(UserError, match=r"a.params.state: no such file, so there is no run to resume"):
        run.main([*words, "--resume"])


def test_second_run_with_the_same_output_is_refused_while_the_first_lives(world, start):
    process = start(signal.SIGSTOP, *PRETRAIN.split(), "4")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), Path("messages").read_text()
    for more in ([], ["--resume"]):
        with pytest.raises(UserError, match=r"a.params: another run is writing it; wait for it, or name another outp"):
            run.main([*PRETRAIN.split(), "1", *more])
    process.kill()
    process.wait()
    os.remove("a.params.state")
    run.main([*PRETRAIN.split(), "1"])
    assert left(world) == {"a.params", "a.params.json"}


def test_file_that_is_no_state_is_named(world):
    for content in (b"", b"nonsense", None):
        if content is None:
            torch.save({"run": {}, "trainer": 3}, "a.params.state")
        else:
            Path("a.params.state").write_bytes(content)
        with pytest.raises(UserError, match=r"^a.params.state: not .*; move it away to start again$"):
            run.main([*PRETRAIN.split(), "1", "--resume"])


def test_state_of_a_version_that_lacked_a_setting_is_refused(world):
    trainer, earlier = small_trainer(), record()
    del earlier["recipe"]["finetune_qa_per_document"]
    StateKeeper("a.state", 1, earlier, "").write(trainer)
    with pytest.raises(UserError, match=r"^a\.state: not the state of a run of this version of the project; move it"):
        StateKeeper("a.state", 1, record(), "").read(trainer)


def test_memory_that_runs_out_while_a_state_is_read_does_not_condemn_it(world, monkeypatch):
    trainer = small_trainer()
    keeper = StateKeeper("a.state", 1, record(), "")
    keeper.write(trainer)
    monkeypatch.setattr(trainer, "load_state_dict", Mock(side_effect=RuntimeError("CUDA out of memory. Tried to")))
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        keeper.read(trainer)
    monkeypatch.setattr(torch, "load", Mock(side_effect=RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    with pytest.raises(UserError, match=r"^a\.state: does not fit in memory; close other programs, and try again$"):
        keeper.read(trainer)


def test_full_disk_does_not_end_a_run(world, tmp_path, monkeypatch, capsys):
    keeper = StateKeeper(str(tmp_path / "a.state"), 1e-9, record(), "")
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
    assert said.count("No space left on device); training continues, and tries again") == 5 * 3 - 1
    again = small_trainer()
    keeper.read(again)  # the state that was there
    assert again.steps == 0


def test_disk_too_full_for_tensorboard_does_not_end_a_run(world, monkeypatch, capsys):
    def fails(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "close", fails)
    run.main([*PRETRAIN.split(), "2"])
    assert left(world) == {"a.params", "a.params.json"}
    monkeypatch.setattr(SummaryWriter, "add_scalar", fails)
    run.main([*PRETRAIN.split(), "2"])
    assert capsys.readouterr().err.count("No space left on device: TensorBoard's curves end; training continues") == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_that_cannot_be_printed_does_not_end_a_run(world, monkeypatch, stream):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            if "epoch" in text:  # the progress bar, or an accuracy
                raise BrokenPipeError
            return super().write(text)

    monkeypatch.setattr(sys, stream, Closed())
    run.main([*PRETRAIN.split(), "2", "--eval_corpus_path", "pairs.tsv"])
    assert left(world) == {"a.params", "a.params.json"} and getattr(sys, stream).getvalue()


@pytest.mark.parametrize(
    ("script", "words", "written", "beside"),
    [
        ("src/run.py", f"{PRETRAIN} 2", "a.params", {"a.params", "a.params.json"}),
        (
            "scripts/experiment.py",
            "run pretrain_epochs=1 finetune_epochs=1 --folder . --held_out",
            "experiments/results.jsonl",
            {"experiments"},
        ),
    ],
)
def test_training_into_a_closed_pipe_ends_with_code_0(world, script, words, written, beside):
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, ROOT / script, *words.split()]
    # with PYTHONUNBUFFERED, it would end before the training
    process = subprocess.Popen(words, stdout=writer, stderr=writer, env=os.environ | {"PYTHONUNBUFFERED": ""})
    os.close(writer)
    assert process.wait(3600) == 0
    assert left(world) == beside and (world / written).stat().st_size and not list(world.glob("**/*.state"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_training_whose_messages_fill_a_disk_ends_with_code_0(world):
    words = [sys.executable, ROOT / "src/run.py", *PRETRAIN.split(), "2"]
    with open("/dev/full", "w") as full:
        said = subprocess.run(words, stdout=full, stderr=full, env=os.environ | {"PYTHONUNBUFFERED": ""})
    assert said.returncode == 0 and left(world) == {"a.params", "a.params.json"}


def test_output_with_a_very_long_name_has_a_curve(world):
    name = "é" * 110  # 220 bytes; the temporary file beside it may have 255
    run.main(f"pretrain vanilla wiki.txt --writing_params_path {name} --pretrain_epochs 1".split())
    (curve,) = Path("expt/run").iterdir()
    assert left(world) == {name, f"{name}.json"} and name[-50:] in curve.name


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
    assert left(world) == {"a.params", "a.params.json"} and threading.excepthook is threading.__excepthook__
    failed = ValueError("of another thread"), None, threading.current_thread()
    with steps.failed_writes_hidden():
        threading.excepthook(threading.ExceptHookArgs([ValueError, *failed]))
    assert "of another thread" in capsys.readouterr().err


def test_nan_on_a_gpu_ends_the_run_with_the_next_report(monkeypatch):
    """A GPU is not asked after each step; the meta device stands for one."""
    monkeypatch.setattr(GPT, "loss", staticmethod(lambda logits, targets: logits.sum() * float("nan")))
    monkeypatch.setattr("engine.Throughput.seconds", lambda throughput: 2.0)
    trainer = small_trainer()
    trainer.device, trainer.order = torch.device("meta"), torch.arange(7)  # an order drawn there has no values
    with pytest.raises(FloatingPointError, match=r"^step 1, learning rate .*: loss nan, gradient norm nan$"):
        trainer.train()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_loss_ends_the_run_and_spoils_nothing(world, monkeypatch, where):
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
    with pytest.raises(
        UserError,
        match=r"^step 4, learning rate \S+: .* lower --pretrain_lr and another --writing_params_path; a\.",
    ):
        run.main([*PRETRAIN.split(), "10", "--micro_batch_rows", "128"])
    assert left(world) == {"a.params.state"}


def test_kept_parameters_are_those_of_a_shorter_run(world):
    run.main([*PRETRAIN.split(), "2"])
    shorter = torch.load("a.params")
    run.main([*PRETRAIN.split(), "5", "--keep_every", "2"])
    assert left(world) == {f"a.params{end}" for end in ("", ".json", ".2", ".2.json", ".4", ".4.json")}
    kept, later, last = (torch.load(f"a.params{end}") for end in (".2", ".4", ""))
    assert same(kept, shorter) and not same(later, shorter) and not same(later, last)
    written = json.loads(Path("a.params.4.json").read_text())
    assert (written["epochs"], written["epochs_done"]) == (5, 4)


def test_kept_parameters_do_not_replace_what_the_run_reads(world):
    run.main([*PRETRAIN.split(), "2", "--keep_every", "1"])
    before = Path("a.params.1").read_bytes()
    again = [*PRETRAIN.split(), "2", "--reading_params_path", "a.params.1"]
    with pytest.raises(UserError, match=r"a\.params\.1: --keep_every may overwrite it; name another output$"):
        run.main([*again, "--keep_every", "1"])
    run.main(again)
    assert Path("a.params.1").read_bytes() == before


def test_write_protected_parameters_are_not_kept_over(world):
    Path("a.params.2").touch(mode=0o444)
    with pytest.raises(UserError, match=r"^a\.params\.2: is write-protected; name another output$"):
        run.main([*PRETRAIN.split(), "3", "--keep_every", "1"])
    assert left(world) == {"a.params.2"}


def test_parameters_that_cannot_be_kept_do_not_end_a_run(world, capsys):
    Path("a.params.2").mkdir()
    run.main([*PRETRAIN.split(), "3", "--keep_every", "1"])
    assert left(world) == {f"a.params{end}" for end in ("", ".json", ".1", ".1.json", ".2", ".3", ".3.json")}
    assert "a.params.2: cannot be written (Is a directory); training continues without it" in capsys.readouterr().err


def test_out_of_memory_says_what_to_lower(world, monkeypatch):
    def fails(self, idx, targets=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB.")

    fp32 = f"{PRETRAIN.replace('--pretrain_epochs', '--precision fp32 --pretrain_epochs')}".split()  # 8 rows, 7 lines
    with monkeypatch.context() as patched:
        patched.setattr(GPT, "forward", fails)
        with pytest.raises(UserError, match=r"^out of memory; resume with --resume and a --micro_batch_rows below 7$"):
            run.main([*fp32, "1"])
        with pytest.raises(UserError, match=r"^out of memory; resume with --resume and a --micro_batch_rows below 4$"):
            run.main([*fp32, "1", "--resume", "--micro_batch_rows", "4"])
        with pytest.raises(UserError, match=r"^out of memory; close other programs or, on a GPU, give --device cpu$"):
            run.main([*fp32, "1", "--resume", "--micro_batch_rows", "1"])
    run.main([*fp32, "1", "--resume", "--micro_batch_rows", "2"])
    assert left(world) == {"a.params", "a.params.json"}
    monkeypatch.setattr(GPT, "to", fails)  # another program has the GPU's memory
    with pytest.raises(UserError, match=r"^out of memory; close other programs or, on a GPU, give --device cpu$"):
        run.main([*fp32, "1"])


def test_record_holds_every_setting_and_is_checked(world, capsys):
    run.main([*PRETRAIN.split(), "1", "--seed", "3"])
    written = json.loads(Path("a.params.json").read_text())
    assert written["variant"] == "vanilla" and written["bottleneck_dim"] is None
    assert (written["seed"], written["epochs"], written["question"]) == (3, 1, "Where was {name} born?")
    assert written["recipe"] == asdict(replace(RECIPES["course"], pretrain_epochs=1))
    assert {field.name for field in fields(Run)} <= written.keys()
    assert written["device"] == "cpu" and written["precision"] in ("fp32", "bf16")
    assert written["versions"]["torch"] == torch.__version__
    if current_commit() != "unknown":
        assert re.fullmatch("[0-9a-f]{40}(-dirty)?", written["commit"])
    assert len(written["vocabulary"]) == len(written["sha256"]) == 64

    Path("other.txt").write_text(WIKI.replace("j", "\u0142"), encoding="utf-8")  # as many characters, but others
    evaluate = ["--reading_params_path", "a.params", "--eval_corpus_path", "pairs.tsv", "--outputs_path", "out"]
    run.main(["evaluate", "vanilla", "wiki.txt", *evaluate])
    with pytest.raises(UserError, match=r"a.params: its vocabulary differs from that of other.txt; give the text"):
        run.main(["evaluate", "vanilla", "other.txt", *evaluate])
    state = torch.load("a.params")
    state["ln_f.bias"] += 1
    torch.save(state, "a.params")  # as if it came from elsewhere
    run.main(["evaluate", "vanilla", "other.txt", *evaluate])
    warning = "warning: a.params.json does not belong to a.params; it is not used"
    assert capsys.readouterr().err.count(warning) == 1
    Path("a.params.json").write_text("[1, 2")
    with pytest.raises(UserError, match=r"a.params.json: not the record of a params file; rename it to use the param"):
        run.main(["evaluate", "vanilla", "wiki.txt", *evaluate])
    os.remove("a.params.json")
    run.main(["evaluate", "vanilla", "wiki.txt", *evaluate])

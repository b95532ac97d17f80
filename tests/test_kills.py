"""Crash-only: commands killed at random moments and started again lose nothing and leave nothing half written.

In the ordinary test, a pretraining kills itself in a step, or in a write of its state. `bash scripts/test.sh --long`
kills each command 50 times from outside: half of the times at a random moment, half when it is seen to be writing.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import PAIRS, TRIED, WIKI, send

import run
from checkpoint import read_params, read_tensors
from trainer import Trainer

TRAINING = {
    "pretrain": "pretrain vanilla wiki.txt --device cpu",
    "finetune": "finetune vanilla wiki.txt --device cpu --finetune_corpus_path pairs.tsv",
}


def in_silence(function: Callable, *arguments: object) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    function(*arguments)


def unfinished() -> set[str]:
    """The files that are being written, or that a killed process left half written."""
    return {path.name for path in Path().iterdir() if path.name.endswith(".part")}


class Killer:
    """Starts a function in new processes and kills them, until so many are killed."""

    def __init__(self, kills: int) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["pytest", "torch._dynamo", "torch.utils.tensorboard"])
        self.moments, self.wanted = random.Random(0), kills
        self.kills, self.in_a_write = 0, 0

    def start(self, longest: float, function: Callable, *arguments: object) -> bool:
        """Runs it once: to its end where enough are killed, otherwise for `longest` seconds at most.

        Returns whether it ended by itself.
        """
        left = unfinished()  # by processes killed before, until one gets as far as to remove it
        process = self.context.Process(target=in_silence, args=(function, *arguments))
        process.start()
        last = self.kills >= self.wanted
        process.join(None if last else self.moments.uniform(0, longest))
        while self.kills % 2 and not last and process.is_alive() and not unfinished() - left:
            time.sleep(0.001)
        if process.exitcode is not None:
            assert process.exitcode == 0
            return True
        send(process.pid, signal.SIGKILL)
        process.join()
        self.count(left)
        return False

    def count(self, left: set[str]) -> None:
        """Counts a kill; `left` are the files that were left half written before it."""
        self.kills += 1
        self.in_a_write += bool(unfinished() - left)

    def print(self, what: str) -> None:
        print(f"{what}: {self.kills} kills, {self.in_a_write} of them in the middle of a write")


class StepKiller(Killer):
    """Lets each process kill itself in one of its first steps, or in a write, however fast the machine is."""

    MOST_STEPS = 2

    def start(self, longest: float, function: Callable, *arguments: object) -> bool:
        if self.kills >= self.wanted:
            return super().start(longest, function, *arguments)
        left, when = unfinished(), self.moments.randint(1, self.MOST_STEPS)
        killed = (self.kills % 2 == 1, when, function, *arguments)
        process = self.context.Process(target=in_silence, args=(kill_itself, *killed))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        TRIED["kills"] += 1
        self.count(left)
        return False


def kill_itself(in_a_write: bool, when: int, function: Callable, *arguments: object) -> None:
    """Calls the function, and kills this process as its step number `when` begins, or its write of that number ends."""
    owner, name = (os, "fsync") if in_a_write else (Trainer, "step")
    original = getattr(owner, name)
    calls = iter(range(1, 1 + when))

    def counted(*args: object) -> object:
        if next(calls) == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    setattr(owner, name, counted)
    function(*arguments)


def train_under_kills(function: str, killer: Killer, epochs: int) -> None:
    words = [*TRAINING[function].split(), f"--{function}_epochs", str(epochs), "--writing_params_path", "a.params"]
    run.main(words)
    undisturbed = torch.load("a.params")
    for name in ("a.params", "a.params.json"):
        os.remove(name)
    before = set(os.listdir())
    ended, reached = False, 0
    while not ended:
        often = ["--checkpoint_minutes", "1e-9" if killer.kills < killer.wanted else "5"]
        resume = ["--resume"] if os.path.exists("a.params.state") else []
        ended = killer.start(0.9, run.main, [*words, *often, *resume])
        if os.path.exists("a.params.state"):
            step = read_tensors("a.params.state", "")["trainer"]["steps"]  # the file is whole at any moment
            assert step >= reached  # nothing is trained again
            reached = step
        else:
            complete = os.path.exists("a.params")
            assert complete or reached == 0
            ended = ended or complete  # or it was killed right after its last write
    killer.print(function)
    assert set(os.listdir()) - before == {"a.params", "a.params.json"}
    trained = torch.load("a.params")
    assert all(torch.equal(value, trained[name]) for name, value in undisturbed.items())
    assert reached > 0  # some runs resumed the state of another


def test_pretraining_survives_being_killed_twenty_four_times(world):
    killer = StepKiller(24)
    train_under_kills("pretrain", killer, epochs=StepKiller.MOST_STEPS * 24 + 1)  # an epoch has one step
    assert killer.kills == 24 and killer.in_a_write == 12


@pytest.mark.long
@pytest.mark.parametrize("function", TRAINING)
def test_training_survives_fifty_kills(world, function):
    killer = Killer(50)
    train_under_kills(function, killer, epochs=300)
    assert killer.kills >= 20 and killer.in_a_write >= killer.kills // 5


@pytest.mark.long
def test_evaluation_survives_fifty_kills(world):
    Path("many.tsv").write_text(PAIRS * 60, encoding="utf-8")
    run.main([*TRAINING["finetune"].split(), "--finetune_epochs", "2", "--writing_params_path", "a.params"])
    words = "evaluate vanilla wiki.txt --reading_params_path a.params --eval_corpus_path many.tsv --outputs_path p"
    run.main(words.split())
    expected = Path("p").read_bytes()
    before = set(os.listdir())
    killer = Killer(50)
    while killer.kills < killer.wanted:
        Path("p").write_text("old")
        killer.start(1.5, run.main, words.split())
        assert Path("p").read_bytes() in (b"old", expected)
    killer.start(0, run.main, words.split())
    killer.print("evaluate")
    assert Path("p").read_bytes() == expected and set(os.listdir()) == before


def collect() -> None:
    sys.argv = ["collect_submission.py"]
    import collect_submission

    collect_submission.main()


@pytest.mark.long
def test_submission_survives_fifty_kills(world):
    Path("src").mkdir()
    Path("src/run.py").write_text("")
    run.main([*TRAINING["finetune"].split(), "--finetune_epochs", "1", "--writing_params_path", "vanilla.model.params"])
    Path("vanilla.finetune.params").write_bytes(Path("vanilla.model.params").read_bytes())
    perceiver = TRAINING["finetune"].replace("vanilla", "perceiver").split()
    run.main([*perceiver, "--finetune_epochs", "1", "--writing_params_path", "perceiver.finetune.params"])
    for name in ("vanilla.nopretrain", "vanilla.pretrain", "perceiver.pretrain"):
        for split in ("dev", "test"):
            Path(f"{name}.{split}.predictions").write_text("London\n" * WIKI.count("born"))
    old = b"PK" + bytes(28) + b"src/"  # all that tells an archive of ours from other files
    Killer(0).start(0, collect)
    expected = Path("assignment5.zip").read_bytes()
    assert zipfile.ZipFile("assignment5.zip").testzip() is None
    before = set(os.listdir())
    killer = Killer(50)
    while killer.kills < killer.wanted:
        Path("assignment5.zip").write_bytes(old)
        killer.start(1.5, collect)
        assert Path("assignment5.zip").read_bytes() in (old, expected)
    killer.start(0, collect)
    killer.print("submission")
    assert Path("assignment5.zip").read_bytes() == expected and set(os.listdir()) == before
    assert read_params("vanilla.model.params")

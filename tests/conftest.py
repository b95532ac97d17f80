"""The small world, the small model and the processes that the tests share."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dataset import CharCorruptionDataset
from model import GPT, GPTConfig
from question import COURSE_TEMPLATE, parse_pairs
from readings import FactDataset, SalientSpanDataset
from recipe import RECIPES
from recipe import VARIANTS as VARIANT_TABLE
from trainer import TrainerConfig


def pytest_configure(config: pytest.Config) -> None:
    """Hides GPUs from all tests but those that need one: many tests compare bits, which no GPU promises."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


ROOT = Path(__file__).parents[1]
VARIANTS = list(VARIANT_TABLE)
COURSE_VARIANTS = ["vanilla", "perceiver", "synthesizer", "rope"]  # whose names, decay and initialization are known
PEOPLE = [
    ("Ada Lovelace", "London"),
    ("Björk", "Reykjavík"),
    ("Søren Kierkegaard", "Copenhagen"),
    ("Antonín Dvořák", "Nelahozeves"),
    ("Frida Kahlo", "Mexico City"),
    ("Alan Turing", "London"),
]
WIKI = "".join(f"{name}. Where was {name} born? In {place}, as everybody knows .\n" for name, place in PEOPLE)
PAIRS = "".join(f"Where was {name} born?\t{place}\n" for name, place in PEOPLE)


TRIED: Counter[str] = Counter()  # printed after the tests; docs/reliability.md has the sums of a whole run


def pytest_terminal_summary(terminalreporter) -> None:
    if TRIED:
        terminalreporter.write_line("tried: " + ", ".join(f"{count:,} {what}" for what, count in sorted(TRIED.items())))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def known_ceiling(monkeypatch) -> None:
    """Every train() measures a large matmul; in bf16 on a CPU without AVX-512 that would take a minute."""
    monkeypatch.setattr("engine.matmul_ceiling", lambda device, dtype: 1e12)


@pytest.fixture
def documents() -> CharCorruptionDataset:
    return CharCorruptionDataset(WIKI, 128)


QUESTIONS = "".join(f"Where was {name} born?\n" for name, _ in PEOPLE)


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """A folder with the text, the pairs under several names and the questions; it is the current folder."""
    files = {
        "wiki.txt": WIKI,
        "pairs.tsv": PAIRS,
        "birth_places_train.tsv": PAIRS,
        "birth_dev.tsv": PAIRS,
        "birth_test_inputs.tsv": QUESTIONS,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def salient_dataset(documents: CharCorruptionDataset) -> SalientSpanDataset:
    """The documents with questions, and with masked entities or, in a tenth of the readings, random spans."""
    recipe = replace(RECIPES["fast"], entity_mask_prob=0.9, context_chars=12, question_prefix_prob=1.0)
    return SalientSpanDataset(documents, parse_pairs(PAIRS), COURSE_TEMPLATE, recipe)


def fact_dataset(documents: CharCorruptionDataset) -> FactDataset:
    """The documents as open reads them."""
    return FactDataset(documents, RECIPES["open"])


def small_model(vocab_size: int, variant: str = "vanilla", dropout: float = 0.1, block_size: int = 128, **sizes) -> GPT:
    """A GPT of some ten thousand parameters."""
    sizes = {"n_layer": 3, "n_head": 2, "n_embd": 32, "bottleneck_dim": 16} | sizes
    drop = {"embd_pdrop": dropout, "resid_pdrop": dropout, "attn_pdrop": dropout}
    return GPT(GPTConfig(vocab_size, block_size, variant=variant, **sizes, **drop))


def trainer_config(**wanted) -> TrainerConfig:
    """An epoch in fp32 on a CPU, in batches of 4, unless settings differ."""
    return TrainerConfig(**({"max_epochs": 1, "batch_size": 4, "device": "cpu", "precision": "fp32"} | wanted))


def write_params(path: str, variant: str = "vanilla") -> None:
    """A params file of an untrained model for the text of the world."""
    torch.save(GPT(GPTConfig(len(set(WIKI)) + 2, 128, variant=variant)).state_dict(), path)


class Enough(Exception):
    """Ends a training in the middle."""


def send(pid: int, number: int) -> None:
    """Sends a signal, and counts it."""
    TRIED["kills" if number == signal.SIGKILL else "signals"] += 1
    os.kill(pid, number)


def restore_interrupts() -> None:
    """Called in a child process: the tests may run in the background, where a shell has SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """A command of the project, run as a user would run it."""
    words = (sys.executable, *words)
    return subprocess.run(
        words,
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},  # whatever the locale
        timeout=3600,  # only against hanging
        preexec_fn=restore_interrupts,
    )


def check_growth(work: Callable[[int], object], size: int, most: float = 25) -> None:
    """Asserts that the work takes less than `most` times as long as for a tenth of the size, on any machine.

    Where the time is in proportion to the size, that is ten times as long; where it is quadratic, a hundred times.
    """

    def cpu_seconds(size: int) -> float:
        start = time.process_time()
        work(size)
        return time.process_time() - start

    work(size // 10)  # warms up
    ratios: list[float] = []
    while len(ratios) < 3 and min(ratios, default=most) >= most:  # other load may disturb a measurement
        few = cpu_seconds(size // 10)
        ratios.append(cpu_seconds(size) / few)
    assert min(ratios) < most, f"{size} takes {ratios} times as long as a tenth of it"


class Regression(torch.nn.Module):
    """Not a language model: the trainer must not care."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x, y):
        out = self.layer(x)
        return out, (out - y).square().mean()


@pytest.fixture(params=[1, 3])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)

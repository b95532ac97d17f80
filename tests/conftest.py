"""A small world that the tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # many tests compare bits, which no GPU promises

import pytest
import torch

from dataset import CharCorruptionDataset

torch.backends.mps.is_available = lambda: False

VARIANTS = ["vanilla", "perceiver", "synthesizer", "rope"]
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


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def documents() -> CharCorruptionDataset:
    return CharCorruptionDataset(WIKI, 128)


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """A folder with the text and the pairs, and the current one."""
    (tmp_path / "wiki.txt").write_text(WIKI, encoding="utf-8")
    (tmp_path / "pairs.tsv").write_text(PAIRS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


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

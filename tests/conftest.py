"""A small world that the tests share."""

import pytest
import torch

from dataset import CharCorruptionDataset

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

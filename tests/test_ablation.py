"""The script that measures what settings are worth."""

import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import PAIRS, PEOPLE, WIKI

from cli import UserError
from files import parse_pairs
from recipe import RECIPES

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import ablation


def test_settings_are_changed_by_name():
    fast = RECIPES["fast"]
    recipe = ablation.changed(fast, ["framed=0", "pretrain_batch_size=16", "decay_within_run=False"])
    assert asdict(recipe) == asdict(fast) | {"framed": 0.0, "pretrain_batch_size": 16, "decay_within_run": False}


@pytest.mark.parametrize(
    "setting", ["framed", "framed=much", "frame=0", "pretrain_epochs=1.5", "decay_within_run=1", ""]
)
def test_what_is_no_setting_is_refused(setting):
    with pytest.raises(UserError, match=f"^{setting}: not NAME=VALUE"):
        ablation.changed(RECIPES["fast"], [setting])


@pytest.mark.parametrize(("people", "asked"), [(0, 1), (3, 1)])
def test_who_is_asked_about_is_read_but_in_no_pair(tmp_path, monkeypatch, people, asked):
    monkeypatch.chdir(tmp_path)
    parts = ablation.write_world(WIKI, parse_pairs(PAIRS), people)
    everybody = [*parts["asked"], *parts["trained_on"]]
    assert len(parts["asked"]) == asked and len(set(everybody)) == len(everybody) == (people or len(PEOPLE))
    text = Path("ablation/wiki.txt").read_text(encoding="utf-8")
    assert set(text) == set(WIKI)
    for name, place in PEOPLE:
        assert (f"\n{name}. " in f"\n{text}") == ((f"Where was {name} born?", place) in everybody)
    assert sorted(os.listdir("ablation")) == ["asked.tsv", "trained_on.tsv", "wiki.txt"]
    for name, part in parts.items():
        assert parse_pairs(Path(f"ablation/{name}.tsv").read_text(encoding="utf-8")) == part

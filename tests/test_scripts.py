"""The scripts that measure and draw: settings, invented names, pictures."""

import io
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PAIRS, PEOPLE, WIKI

from cli import UserError
from dataset import CharCorruptionDataset
from files import parse_pairs
from model import GPT, GPTConfig
from recipe import RECIPES

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import ablation
import invented
import pictures
import saturation

ROOT = Path(__file__).parents[1]
ASCII = "".join(map(chr, range(32, 127)))


@pytest.mark.parametrize("script", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / "collect_submission.sh"])
def test_shell_scripts_can_be_parsed(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(
    "words",
    ["quickstart.sh x", "speedrun.sh vanilla 0 no", "exposures.sh fast 60", "ablations.sh . few", "sweep.sh 600"],
)
def test_shell_scripts_say_how_they_are_used_before_they_install_anything(words):
    script, *arguments = words.split()
    said = subprocess.run(["bash", ROOT / "scripts" / script, *arguments], capture_output=True, text=True)
    assert said.returncode == 2 and said.stderr.startswith(f"usage: bash scripts/{script} ") and said.stdout == ""


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
    with pytest.raises(UserError, match=r"^pretrain_batch_size=0: must be at least 1$"):
        ablation.changed(RECIPES["fast"], ["pretrain_batch_size=0"])


@pytest.mark.parametrize(("people", "asked"), [(0, 1), (3, 1)])
def test_who_is_asked_about_is_read_but_in_no_pair(tmp_path, monkeypatch, people, asked):
    monkeypatch.chdir(tmp_path)
    ablation.FOLDER.mkdir()
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


def test_a_question_that_is_asked_is_not_trained_on_with_another_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ablation.FOLDER.mkdir()
    pairs = parse_pairs(PAIRS)
    parts = ablation.write_world(WIKI, [*pairs, *((question, "elsewhere") for question, _ in pairs)], None)
    asked, trained_on = ({question for question, _ in parts[name]} for name in ("asked", "trained_on"))
    assert asked and trained_on and not asked & trained_on
    with pytest.raises(UserError, match=r"^2 people are too few to ask about one in 5$"):
        ablation.write_world(WIKI, pairs[:2], None)


def test_the_share_of_readings_for_the_place_is_counted_over_those_asked_about():
    text = "A. B. Ada. she went to Rome\nBea. from Oslo she went to Bonn\nCleo. she went to Lima\nWhere was it born?"
    parts = {"asked": [("Where was A. B. Ada born?", "Rome"), ("Where was Bea born?", "Oslo")]}
    parts["trained_on"] = [("Where was Cleo born?", "Lima")]
    recipe = ablation.changed(RECIPES["fast"], ["salient=1", "by_odds=False"])
    torch.manual_seed(0)
    shares = [
        ablation.percent_masked(recipe, text * 20, parts) for text in (text + "\n", text.replace("Oslo", "here") + "\n")
    ]
    assert shares == [pytest.approx(75, abs=4), 50.0]
    assert math.isnan(ablation.percent_masked(recipe, text * 20, parts | {"asked": [("Where was Dan born?", "Rome")]}))


def test_invented_people_are_nobody_in_the_text_and_can_be_spelled_with_it():
    everybody = invented.invent(200, ASCII)
    assert len(everybody) == len(set(everybody)) == 200
    assert {language for language, _ in everybody} == set(invented.NAMES)
    known = everybody[0][1]
    names = [name for _, name in invented.invent(200, f"{known} {ASCII.replace('x', '')}")]
    assert known not in names and not any("x" in name for name in names)


def test_the_picture_of_knowledge_shows_the_report(monkeypatch):
    """Of 40 answers the 20 surer ones are right three times in four, the others one time in four."""
    rows = [
        f"{p}\t{correct}"
        for p, rights in ((0.95, 3), (0.15, 1))
        for correct in [True] * rights + [False] * (4 - rights)
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(["probability\tcorrect", *rows * 5]) + "\n"))
    bars, curve = pictures.knowledge().axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars.patches] == [(15, 25), (95, 75)]
    assert [label.get_text() for label in bars.texts] == ["20", "20"]
    share, right = curve.lines[0].get_data()
    assert len(share) == 40 and right[19] == 75 and right[39] == 50 and np.isclose(share[19], 50)


@pytest.mark.parametrize("given", ["", "probability\tcorrect\n", "something else\n1\n"])
def test_what_is_no_report_is_not_drawn(monkeypatch, given):
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    with pytest.raises(UserError, match=r"^standard input: no report; "):
        pictures.knowledge()


def test_the_picture_of_exposures_has_a_curve_for_each_file(monkeypatch):
    accuracies = {"fast": [(3, 1.25), (6, 40)], "course": [(33, 0)]}
    lines = [
        f"runs/{name}.txt:epoch {epoch}: dev accuracy (%) {percent}\n"
        for name, points in accuracies.items()
        for epoch, percent in points
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(lines)))
    (axis,) = pictures.exposures().axes
    drawn = {line.get_label(): [tuple(point) for point in line.get_xydata()] for line in axis.lines}
    assert drawn == accuracies
    monkeypatch.setattr("sys.stdin", io.StringIO("epoch 3: dev accuracy (%) 1.25\n"))  # of which file?
    with pytest.raises(UserError, match=r"^standard input: no accuracies; "):
        pictures.exposures()


def test_a_notebook_without_its_picture_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "DOCS", tmp_path / "docs")
    (tmp_path / "mingpt-demo").mkdir()
    (tmp_path / "mingpt-demo/play_char.ipynb").write_text('{"cells": [{"source": []}, {"outputs": [{"text": []}]}]}')
    with pytest.raises(UserError, match=r"^mingpt-demo/play_char\.ipynb: saved without its picture"):
        pictures.play_char()


def test_an_ablation_without_a_place_for_its_results_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ablation").write_text("a file")
    monkeypatch.setattr("sys.argv", ["ablation.py", "vanilla"])
    with pytest.raises(UserError, match=r"^ablation: .* is in the way"):
        ablation.main()


def test_how_sure_attention_is_that_looks_everywhere_or_at_one_character():
    documents = CharCorruptionDataset("\n".join(["Ada Lovelace. Ada Lovelace was born in London in 1815.", ASCII]), 128)
    model = GPT(GPTConfig(documents.vocab_size, 128, n_layer=2, n_head=2, n_embd=8))
    lines = [documents.data[0], documents.data[1]]
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.query.weight)  # all scores are 0
    evenly = np.mean([1 / (t + 1) for line in lines for t in range(saturation.FIRST, len(line) + 1)])  # and the mask
    assert np.allclose(saturation.largest_weights(model, documents, lines), [evenly, evenly])
    torch.nn.init.normal_(model.blocks[1].attn.query.weight, std=1e6)
    first, second = saturation.largest_weights(model, documents, lines)
    assert np.isclose(first, evenly) and second > 0.99


def test_pictures_without_matplotlib_say_what_to_install(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    command = [sys.executable, ROOT / "scripts/pictures.py", "attention"]
    said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert said.returncode == 2
    assert said.stderr == "pictures.py: error: matplotlib is not installed; pip install matplotlib\n"

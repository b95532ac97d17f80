"""The submission: what each year packs, and what is refused."""

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, WIKI, command

import collect_submission
from cli import UserError
from files import file_hash
from model import GPT, GPTConfig


def collect(world: Path, *words: str) -> subprocess.CompletedProcess:
    return command(str(ROOT / "scripts/collect_submission.py"), *words, cwd=world)


def write_params(path: Path, variant: str, **settings) -> None:
    """A params file as the course's code writes it: a state_dict, and no record beside it."""
    settings = {"vocab_size": len(set(WIKI)) + 2, "block_size": 128} | settings
    state = GPT(GPTConfig(variant=variant, **settings)).state_dict()
    zeros = {name: torch.zeros_like(value) for name, value in state.items() if not name.endswith("mask")}
    torch.save(state | zeros, path)  # zeros are packed faster


@pytest.fixture
def submission(world) -> Path:
    """A folder in which everything for the perceiver year is there."""
    (world / "src").mkdir()
    for source in (ROOT / "src").glob("*.py"):
        (world / "src" / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    write_params(world / "vanilla.model.params", "vanilla")
    os.link(world / "vanilla.model.params", world / "vanilla.finetune.params")
    write_params(world / "perceiver.finetune.params", "perceiver", bottleneck_dim=48)
    for name in ("vanilla.nopretrain", "vanilla.pretrain", "perceiver.pretrain"):
        for split in ("dev", "test"):
            (world / f"{name}.{split}.predictions").write_text("London\n" * 6)
    return world


def replace_perceiver(submission: Path, variant: str) -> None:
    """Files of another variant instead of the perceiver's."""
    (submission / "perceiver.finetune.params").unlink()
    write_params(submission / f"{variant}.finetune.params", variant)
    for split in ("dev", "test"):
        name = f"pretrain.{split}.predictions"
        (submission / f"perceiver.{name}").rename(submission / f"{variant}.{name}")


def test_submission_is_packed_after_a_table(submission):
    result = collect(submission)
    assert result.returncode == 0, result.stderr
    assert "6 predictions for 6 questions, 33.3 % right, threshold 10 %: met" in result.stdout
    with zipfile.ZipFile(submission / "assignment5.zip") as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
    assert {f"src/{source.name}" for source in (ROOT / "src").glob("*.py")} <= names
    data = {"wiki.txt", "birth_places_train.tsv", "birth_dev.tsv"}
    params = {"vanilla.model.params", "vanilla.finetune.params", "perceiver.finetune.params"}
    models = ("vanilla.nopretrain", "vanilla.pretrain", "perceiver.pretrain")
    predictions = {f"{model}.{split}.predictions" for model in models for split in ("dev", "test")}
    assert {name for name in names if not name.startswith("src/")} == data | params | predictions


def test_submission_of_the_other_year_or_of_both(submission):
    replace_perceiver(submission, "synthesizer")
    result = collect(submission, "--output_path", "assignment5_submission.zip")
    assert "--year 2022: vanilla, synthesizer;" in result.stdout
    assert result.returncode == 0 and (submission / "assignment5_submission.zip").exists()
    assert "synthesizer.pretrain.test.predictions  6 predictions for 6 questions" in result.stdout
    assert "synthesizer.pretrain.dev.predictions   6 predictions for 6 questions, 33.3 % right, threshold 5 %: met" in (
        result.stdout
    )
    (submission / "perceiver.finetune.params").write_bytes(b"begun")
    (submission / "rope.finetune.params").write_bytes(b"begun")
    result = collect(submission)
    assert "2 files are missing: perceiver.pretrain.dev.predictions" in result.stderr
    assert "or move away the files of the variant that you leave out" in result.stderr
    assert "left out: rope, which --year 2023 does not ask for" in result.stdout


def test_submission_of_the_rope_years(submission):
    replace_perceiver(submission, "rope")
    result = collect(submission)
    assert result.returncode == 2 and "london_baseline_accuracy.txt         MISSING" in result.stdout
    london = "london_baseline_accuracy.txt"
    way_out = f"python london_baseline.py --outputs_path {london}"
    assert result.stderr.endswith(f"1 file is missing: {london}; write {london} with: {way_out}\n")
    (submission / london).write_text("Correct: 2.0 out of 6.0: 33.33%\n")
    result = collect(submission)
    assert result.returncode == 2 and f"{london}: must contain one number from 0 to 100; write" in result.stderr
    command(str(ROOT / "london_baseline.py"), *way_out.split()[2:], cwd=submission)
    assert float((submission / london).read_text()) == pytest.approx(100 * 2 / 6)
    result = collect(submission)
    assert result.returncode == 0 and "london_baseline_accuracy.txt         33.3 %" in result.stdout, result.stderr
    assert "rope.pretrain.dev.predictions        6 predictions for 6 questions, 33.3 % right, threshold 30 %: met" in (
        result.stdout
    )
    with zipfile.ZipFile(submission / "assignment4_submission.zip") as archive:
        packed = {name for name in archive.namelist() if not name.startswith("src/")}
    splits = ("dev.predictions", "test.predictions")
    assert packed == {
        "london_baseline_accuracy.txt",
        "vanilla.model.params",
        *(f"vanilla.nopretrain.{split}" for split in splits),
        *(f"{variant}.finetune.params" for variant in ("vanilla", "rope")),
        *(f"{variant}.pretrain.{split}" for variant in ("vanilla", "rope") for split in splits),
    }


def test_submission_year_decides_archive_thresholds_and_files(submission):
    replace_perceiver(submission, "rope")
    for variant in ("vanilla", "rope"):
        os.link(submission / f"{variant}.finetune.params", submission / f"{variant}.pretrain.params")
    result = collect(submission, "--year", "XCS224N")
    assert result.returncode == 0 and (submission / "assignment5_submission.zip").exists()
    assert "threshold 10 %: met" in result.stdout and "threshold 22 %: met" in result.stdout
    assert "rope.pretrain.params" in zipfile.ZipFile(submission / "assignment5_submission.zip").namelist()
    for year, variant in (("2022", "synthesizer"), ("2023", "perceiver")):
        result = collect(submission, "--year", year)
        assert "left out: rope" in result.stdout and f"3 files are missing: {variant}.finetune.params" in result.stderr
    assert not (submission / "assignment5.zip").exists()


def test_submission_below_a_threshold_is_packed_with_a_warning(submission):
    below = "warning: below the threshold: "
    assert below not in collect(submission).stderr
    (submission / "perceiver.pretrain.dev.predictions").write_text("Rome\n" * 6)
    result = collect(submission)
    assert result.returncode == 0 and result.stderr.endswith(f"{below}perceiver.pretrain.dev.predictions\n")


def test_submission_replaces_no_file_but_an_archive(submission):
    (submission / "notes.txt").write_text("in the way")
    result = collect(submission, "--output_path", "notes.txt")
    assert result.returncode == 2 and "notes.txt: holds a text, and would be overwritten" in result.stderr
    for _ in range(2):
        assert collect(submission, "--output_path", "a.zip").returncode == 0


def test_submission_names_what_is_missing_and_packs_nothing(submission):
    (submission / "vanilla.finetune.params").unlink()
    (submission / "birth_dev.tsv").unlink()
    result = collect(submission)
    assert result.returncode == 2
    assert "2 files are missing: birth_dev.tsv, vanilla.finetune.params" in result.stderr
    assert not (submission / "assignment5.zip").exists()


def test_submission_refuses_predictions_of_other_questions(submission):
    (submission / "vanilla.pretrain.dev.predictions").write_text("Rome\n" * 5)
    (submission / "perceiver.pretrain.dev.predictions").write_text("Rome\n" * 6)
    result = collect(submission)
    assert "WRONG: 5 predictions for 6 questions; evaluate again" in result.stdout
    assert "0.0 % right, threshold 6 %: NOT MET" in result.stdout
    wrong = "nothing packed: vanilla.pretrain.dev.predictions: 5 predictions for 6 questions; evaluate again\n"
    assert result.returncode == 2 and result.stderr.endswith(wrong)
    assert not (submission / "assignment5.zip").exists()


def write_not_finite(path: Path) -> None:
    state = torch.load(path)
    state["head.weight"][3, 5] = torch.nan
    torch.save(state, path)


def write_record_of_another_text(path: Path) -> None:
    Path(f"{path}.json").write_text(json.dumps({"sha256": file_hash(str(path)), "vocabulary": "of another text"}))


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("vanilla.model", lambda path: path.write_bytes(b""), "not a complete file of plain tensors"),
        ("vanilla.finetune", lambda path: torch.save([1, 2], path), "not a params file"),
        ("vanilla.finetune", write_not_finite, "head.weight holds values that are not finite; train again"),
        (
            "vanilla.finetune",
            lambda path: write_params(path, "rope"),
            "was trained as rope, not vanilla; put vanilla's",
        ),
        ("vanilla.model", lambda path: write_params(path, "vanilla", vocab_size=256), "a vocabulary of 256 characters"),
        ("perceiver.finetune", lambda path: write_params(path, "perceiver", n_layer=3), "not the parameters of a perc"),
        (
            "perceiver.finetune",
            lambda path: write_params(path, "perceiver", block_size=256, bottleneck_dim=200),
            "bottleneck_dim 200 is not in 1..128",
        ),
        ("vanilla.finetune", write_record_of_another_text, "its vocabulary differs from that of wiki.txt"),
    ],
)
def test_submission_refuses_params_that_are_not_of_the_variant(submission, monkeypatch, capsys, name, spoil, reason):
    path = submission / f"{name}.params"
    content = torch.load(path)
    path.unlink()  # it may be a link
    torch.save(content, path)
    spoil(path)
    monkeypatch.setattr(sys, "argv", ["collect_submission.py"])
    with pytest.raises(UserError, match=rf"^nothing packed: {name}.params: .*{re.escape(reason)}.*$"):
        collect_submission.main()
    assert "WRONG: " in capsys.readouterr().out
    assert not (submission / "assignment5.zip").exists()


def test_params_are_wrong_where_the_text_to_check_them_is_missing(submission, monkeypatch, capsys):
    replace_perceiver(submission, "rope")
    (submission / "wiki.txt").unlink()
    monkeypatch.setattr(sys, "argv", ["collect_submission.py", "--year", "2025"])
    with pytest.raises(UserError):
        collect_submission.main()
    states = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if ".params" in line]
    assert [name for name, _ in states] == ["vanilla.model.params", "vanilla.finetune.params", "rope.finetune.params"]
    assert {state for _, state in states} == {"WRONG: cannot be checked without wiki.txt; copy it here"}


@pytest.mark.skipif(os.name == "nt", reason="a bash script")
def test_collect_submission_script_runs_from_anywhere(tmp_path):
    result = subprocess.run(
        ["bash", str(ROOT / "collect_submission.sh"), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0 and "assignment5.zip" in result.stdout


@pytest.mark.skipif(os.name == "nt", reason="a bash script")
def test_collect_submission_script_takes_the_python_that_is_named(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to("/bin/false")
    (tmp_path / "scripts").mkdir()
    for name in ("collect_submission.sh", "scripts/python.sh"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "scripts/collect_submission.py").write_text("print('packed')")
    command = ["bash", tmp_path / "collect_submission.sh"]
    result = subprocess.run(command, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "packed\n", "")


@pytest.mark.parametrize("package", ["torch", "numpy"])
def test_submission_without_a_package_is_refused_in_one_line(submission, package):
    (submission / f"{package}.py").write_text(f"raise ImportError('no {package} here')")
    environment = os.environ | {"PYTHONPATH": str(submission)}
    command = [sys.executable, ROOT / "scripts/collect_submission.py"]
    result = subprocess.run(command, cwd=submission, env=environment, capture_output=True, text=True)
    reason = f"cannot be checked (no {package} here); pip install -r requirements.txt"
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and reason in result.stderr


def test_submission_does_not_overwrite_its_own_files(submission, monkeypatch):
    before = (submission / "vanilla.model.params").read_bytes()
    monkeypatch.setattr(sys, "argv", ["x", "--output_path", "./vanilla.model.params"])
    with pytest.raises(UserError, match="would overwrite another file of this run"):
        collect_submission.main()
    assert (submission / "vanilla.model.params").read_bytes() == before


def test_submission_without_code_is_not_packed(submission, monkeypatch):
    (submission / "src").rename(submission / "code")
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(UserError, match=r"1 file is missing: src/\*\.py"):
        collect_submission.main()


def test_threshold_that_is_just_reached_is_met(submission):
    edition = replace(collect_submission.YEARS["2025"], thresholds={"vanilla": 50.0})
    (submission / "vanilla.pretrain.dev.predictions").write_text("London\n" * 5 + "Rome\n")
    rows = "".join(f"Where was {i} born?\t{'London' if i < 3 else 'Bonn'}\n" for i in range(6))
    (submission / "birth_dev.tsv").write_text(rows)
    assert collect_submission.score("vanilla.pretrain.dev.predictions", edition).endswith("50 %: met")

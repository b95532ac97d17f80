"""The commands that quickstart.sh and speedrun.sh start: those of run.py are understood, and other scripts exist."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import run

STUB = """#!/usr/bin/env bash
printf "%q " "$@" >> "$COMMANDS"
echo >> "$COMMANDS"
"""


def commands_of(script: str, folder: Path) -> list[list[str]]:
    """The arguments of each start of Python by a script, in a copy of the project whose Python only notes them."""
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("requirements*.txt"):
        shutil.copy(path, folder)
    (folder / "wiki.txt").touch()
    (folder / "src").mkdir()
    shutil.copy(ROOT / "src" / "recipe.py", folder / "src")  # speedrun.sh looks there for the variants
    python, commands = folder / ".venv" / "bin" / "python", folder / "commands"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    words = ["bash", folder / "scripts" / script]
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "COMMANDS": str(commands)}
    result = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    return [shlex.split(line) for line in commands.read_text().splitlines()]


@pytest.mark.parametrize(("script", "runs"), [("quickstart.sh", 9), ("speedrun.sh", 0)])
def test_commands_of_a_script_are_understood(script, runs, tmp_path, capsys):
    started = [words for words in commands_of(script, tmp_path) if words[0] != "-m"]  # pip
    assert started and all((ROOT / path).exists() for path, *_ in started)
    for path, *words in started:
        code = (ROOT / path).read_text(encoding="utf-8")
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert path == "src/run.py" or all(f'"{option}"' in code for option in options)
    given = [words for path, *words in started if path == "src/run.py"]
    assert len(given) == runs
    for words in given:
        run.parse(words)
    assert capsys.readouterr().err == ""

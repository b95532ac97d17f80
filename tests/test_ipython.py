"""%run of the commands, several times in one process, as in Jupyter."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, command

SESSION = """
import signal, sys, threading
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()


def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    ours = [name for name, module in sys.modules.items() if str(Path("src").resolve()) in str(module)]
    return list(sys.path), handlers, sys.excepthook, threading.excepthook, sys.argv, sys.modules["__main__"], ours


before = state()
for line in Path("lines").read_text().splitlines():
    print("%run", line, flush=True)
    shell.run_line_magic("run", line)
    assert state() == before, line
module = Path("src/question.py")  # the user edits a module
module.write_text(module.read_text().replace('f"Correct:', 'f"Right:'))
shell.run_line_magic("run", "london_baseline.py")
print("alive")
"""
TRAINING = "--finetune_corpus_path pairs.tsv --finetune_epochs 1"
EVALUATION = "--reading_params_path a.params --eval_corpus_path birth_dev.tsv --outputs_path"
LINES = f"""src/dataset.py namedata
src/dataset.py charcorruption
src/dataset.py nothing
src/run.py pretrain vanilla wiki.txt --pretrain_epochs 1 --writing_params_path c.params
src/run.py finetune vanilla wiki.txt {TRAINING} --writing_params_path a.params
src/run.py evaluate vanilla wiki.txt {EVALUATION} p
src/run.py ask vanilla wiki.txt --reading_params_path a.params Björk
src/run.py finetune rope wiki.txt {TRAINING} --writing_params_path b.params
src/run.py evaluate rope wiki.txt {EVALUATION} q
london_baseline.py
london_baseline.py no.tsv
"""


@pytest.fixture
def project(world, monkeypatch) -> Path:
    """A copy of the code beside the text and the questions."""
    shutil.copytree(ROOT / "src", world / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "london_baseline.py", world)
    monkeypatch.setenv("IPYTHONDIR", str(world / "ipython"))
    (world / "lines").write_text(LINES)
    return world


def test_percent_run_leaves_no_trace(project):
    (project / "session.py").write_text(SESSION)
    result = command("session.py", cwd=project)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("%run") == len(LINES.splitlines())
    assert result.stdout.endswith("Right: 2.0 out of 6.0: 33.33%\nalive\n")
    assert (project / "p").read_text().count("\n") == 6 and (project / "b.params").exists()
    assert "Traceback" not in result.stderr
    # without the quotes that some versions of Python put around choices
    errors = [line.replace("'", "") for line in result.stderr.splitlines() if ": error: " in line]
    assert errors == [
        "dataset.py: error: argument dataset_type: invalid choice: nothing (choose from namedata, charcorruption); "
        "see --help",
        "run.py: error: a.params: was trained as vanilla, not rope; give vanilla",
        "london_baseline.py: error: no.tsv: no such file",
    ]


def test_a_mistake_in_a_process_of_its_own_still_ends_with_code_2(project):
    """Also where IPython is imported, but is not what runs the command."""
    (project / "IPython.py").write_text("def get_ipython():\n    return None\n")
    words = [sys.executable, "-c", "import IPython, runpy; runpy.run_path('london_baseline.py', run_name='__main__')"]
    environment = os.environ | {"PYTHONPATH": str(project)}
    (project / "birth_dev.tsv").unlink()
    result = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert (result.returncode, result.stderr) == (2, "london_baseline.py: error: birth_dev.tsv: no such file\n")

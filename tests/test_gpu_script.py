"""scripts/gpu.sh in tiny sizes, on a CPU: it runs to its end whatever a part does, and records what it measured."""

import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from conftest import ROOT, VARIANTS

import gpu
import leaderboard
from records import append_record, read_records

PAGE = "<!-- table: gpu -->\n<!-- /table -->\n"
MEASURED = {
    "parts": {"machine": "ok", "tests": "ok", "step": "timed out after 150 s: no output", "fast": "ok", "course": "ok"},
    "step": {
        "matmul_tflops": 700.0,
        "vanilla, not compiled": {"milliseconds": 8.25, "percent_of_ceiling": 2.5, "peak_mb": 1200},
        "rope, compiled": {"milliseconds": 2.5, "percent_of_ceiling": 31.0, "peak_mb": 900},
    },
    "fast": {"total": 61, "percent": 98.4},
    "course": {"minutes_of_all_epochs": 1.24},
}


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A copy of the records of speed, from which tables are rendered."""
    (tmp_path / "results").mkdir()
    shutil.copy(ROOT / "results/speed.jsonl", tmp_path / "results")
    monkeypatch.setattr(leaderboard, "ROOT", tmp_path)
    return tmp_path / "results/speed.jsonl"


def test_tiny_run_on_a_cpu_ends_well_and_is_not_rendered_as_a_gpus(tmp_path, results, monkeypatch, capsys):
    before = (ROOT / "results/speed.jsonl").read_bytes()
    unhurried = {name: replace(part, limit=3600) for name, part in gpu.PARTS.items()}  # however slow the machine is
    monkeypatch.setattr(gpu, "PARTS", unhurried)
    monkeypatch.setattr(gpu, "SECONDS", 3600)
    monkeypatch.setattr("signal.signal", Mock())
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(tmp_path / "out")])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    gpu.main()
    said = capsys.readouterr().out
    log = (tmp_path / "out/gpu.log").read_text(encoding="utf-8")
    assert "no GPU: all sizes are tiny, and the figures mean nothing" in said and "tiny sizes have no targets" in said
    assert "a bf16 matmul's speed" not in said  # a target
    assert said.splitlines()[-2] in log
    (record,) = read_records(str(tmp_path / "out/speed.jsonl"))
    measured = record["measured"]
    assert measured["parts"] == dict.fromkeys(gpu.PARTS, "ok") and record["experiment"] == "gpu_tiny"
    assert measured["tests"]["skipped"] > 0 == measured["tests"]["failed"]
    steps = [measured["step"][f"{variant}, not compiled"] for variant in VARIANTS]
    assert all(step["milliseconds"] > 0 and step["ceiling_tflops"] > 0 and step["peak_mb"] > 0 for step in steps)
    assert measured["fast"]["asked"] == 2 and measured["course"]["minutes_of_all_epochs"] > 0
    assert (ROOT / "results/speed.jsonl").read_bytes() == before
    table = leaderboard.rendered(PAGE, "page")
    append_record(str(results), record)
    assert leaderboard.rendered(PAGE, "page") == table


def test_record_of_a_gpu_is_a_row_of_the_results(results):
    outcomes = {name: gpu.Outcome(MEASURED["parts"][name], 1.0, MEASURED.get(name, {})) for name in gpu.PARTS}
    machine = {"name": "1 GPU (H100)", "has_gpu": True, "precision": "bf16", "commit": "0123456-dirty"}
    outcomes["machine"] = gpu.Outcome("ok", 1.0, machine)
    record = gpu.record_of_parts(outcomes, tiny=False)
    assert record["status"] == "failed"
    assert record["note"] == "with changes that were not committed; step timed out after 150 s: no output"
    for _ in range(2):  # on the same day
        append_record(str(results), record | {"date": "2026-11-28"})
    row = "| 2026-11-28 | 0123456 | 1 GPU (H100) | step timed out after 150 s | 8.2 |  |  |  | 61 | 98.4 | 1.2 |\n"
    assert leaderboard.rendered(PAGE, "page").endswith(row * 2 + "<!-- /table -->\n")


def test_targets_are_printed_beside_what_was_measured():
    said = "\n".join(gpu.target_lines(MEASURED))
    assert [line.split()[-4:] for line in said.splitlines()[1:]] == [
        ["at", "most", "60:", "missed"],
        ["at", "most", "5:", "met"],
        ["at", "least", "30:", "met"],
    ]
    nothing = gpu.target_lines({"fast": {}, "course": {}, "step": {}})
    assert all(line.endswith(": not measured") for line in nothing[1:])


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("print('fine')", "ok"),
        ("import gpu; gpu.PARTS['fast'] = gpu.Part(lambda tiny: 1 / 0, 1); gpu.run_here('fast', True)", "failed: Zero"),
        ("import sys; sys.exit('no memory is left')", "failed: no memory is left"),
        ("import os; print('here', flush=True); os.kill(os.getpid(), 11)", "failed: here (signal 11)"),
        ("import time; print('waiting', flush=True); time.sleep(60)", "timed out after 3 s: waiting"),
    ],
)
def test_part_that_fails_or_hangs_is_told_in_one_line_and_keeps_what_it_measured(tmp_path, monkeypatch, code, text):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "scripts"))
    log = tmp_path / "gpu.log"
    log.write_text('measured {"before": 1}\n')
    code = f"""print('50%\\r measured {json.dumps({"loss": 2})}', flush=True); {code}"""
    limit = 3600  # only against hanging
    if "sleep" in code:
        limit = 3

        def wait(process: subprocess.Popen, timeout: float | None = None) -> int:
            """Three seconds pass as soon as the part has printed its line."""
            if timeout == 3:
                while "waiting" not in log.read_text():
                    time.sleep(0.01)
                raise subprocess.TimeoutExpired(process.args, timeout)
            return original(process, timeout)

        original = subprocess.Popen.wait
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
    outcome = gpu.run_part([sys.executable, "-c", code], limit, str(log))
    assert outcome.text.startswith(text) and "\n" not in outcome.text and outcome.measured == {"loss": 2}


def test_processes_of_a_part_do_not_outlive_it(tmp_path):
    log, fifo = tmp_path / "gpu.log", tmp_path / "fifo"
    log.touch()
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = f"import subprocess; subprocess.Popen(['sleep', '600'], stdout=open({str(fifo)!r}, 'w'))"
    assert gpu.run_part([sys.executable, "-c", code], 3600, str(log)).text == "ok"
    readable, _, _ = select.select([end], [], [], 300)  # its end: nobody is left who writes
    assert readable and os.read(end, 1) == b""
    os.close(end)


def outcome_of(name: str) -> gpu.Outcome:
    machine = {"name": "1 GPU (H100)", "has_gpu": True, "precision": "bf16", "commit": "unknown"}
    return gpu.Outcome("ok", 1.0, machine if name == "machine" else MEASURED.get(name, {}))


def test_the_last_part_has_what_the_others_leave_of_nine_minutes(tmp_path, monkeypatch):
    clock, limits = [0.0], {}

    def run_part(command: list[str], limit: float, log: str) -> gpu.Outcome:
        name = command[-1]
        limits[name] = limit
        clock[0] += 100
        return outcome_of(name)

    monkeypatch.setattr(gpu, "run_part", run_part)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    assert gpu.run_all(tmp_path, tiny=False)
    assert limits == {"machine": 200, "tests": 180, "fast": 120, "course": 100, "step": 140} and gpu.SECONDS == 540


def test_a_run_that_is_stopped_leaves_a_record_of_its_finished_parts(tmp_path, monkeypatch):
    def run_part(command: list[str], limit: float, log: str) -> gpu.Outcome:
        if command[-1] == "course":
            with open(log, "a") as file:
                file.write('measured {"steps": 7}\n')
            raise KeyboardInterrupt
        return outcome_of(command[-1])

    monkeypatch.setattr(gpu, "run_part", run_part)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    (tmp_path / "results").mkdir()
    with pytest.raises(KeyboardInterrupt):
        gpu.run_all(tmp_path, tiny=False)
    (record,) = read_records(str(tmp_path / "results/speed.jsonl"))
    assert record["status"] == "failed" and record["note"].endswith("course not finished; step not finished")
    assert record["measured"]["fast"] == MEASURED["fast"] and record["measured"]["course"] == {"steps": 7}


def test_closed_terminal_does_not_cost_the_record(tmp_path, monkeypatch):
    handlers = {number: signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL for number in signal.Signals}
    monkeypatch.setattr("signal.getsignal", handlers.get)
    monkeypatch.setattr("signal.signal", handlers.__setitem__)
    monkeypatch.setattr(gpu, "run_part", lambda command, limit, log: outcome_of(command[-1]))
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(tmp_path / "out")])
    closed = Mock(side_effect=OSError(errno.EIO, "Input/output error"))
    with open(os.devnull, "w") as unused:
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=closed, flush=closed, fileno=unused.fileno))
        gpu.main()
    assert closed.called and len(read_records(str(tmp_path / "results/speed.jsonl"))) == 1
    assert handlers[signal.SIGHUP] is signal.SIG_IGN and handlers[signal.SIGTERM] is not signal.SIG_DFL  # under nohup


def test_python_without_torch_is_named(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}

    def run(folder: str) -> subprocess.CompletedProcess:
        command = ["bash", ROOT / "scripts/gpu.sh", "--out", folder]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    said = run("out")
    assert said.returncode == 2 and said.stderr.startswith("gpu.py: error: ") and said.stderr.count("\n") == 1
    assert "no torch here; point PYTHON at a Python with torch 2.9 or newer" in said.stderr
    assert (tmp_path / "out/gpu.log").exists()  # from where the user stands
    (tmp_path / "file").touch()
    said = run("file")
    assert said.returncode == 2 and said.stderr.endswith("is a file, not a folder; name another with --out\n")

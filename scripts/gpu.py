"""Tests and times the project on one GPU in at most nine minutes, and adds a record to results/speed.jsonl.

bash scripts/gpu.sh        needs torch 2.9 or newer, numpy, tqdm, tensorboard and pytest, but no network

tests     the tests that need a GPU
fast      the fast recipe on this project's files, from pretraining to the last answer
course    2,000 steps of the course's recipe, from which the time of its 650 epochs is estimated
step      a training step of each variant, compiled and not compiled, against the speed of a large matmul

Each part runs in a process of its own, with a time limit, so that one that hangs or fails does not stop the next. The
record says how each one ended. Without a GPU, or with --tiny, all sizes are tiny, and no record goes to results/.
"""

import argparse
import gc
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, UserError, dropping_output, exit_on_user_error, heeded_signals
from files import check_folder, read_bytes, read_text, writing
from recipe import BLOCK_SIZE, RECIPES, VARIANTS
from records import append_record, commit_and_note

if TYPE_CHECKING:
    from dataset import CharCorruptionDataset

ROOT = Path(__file__).resolve().parents[1]
COURSE = RECIPES["course"]
STEPS = 2000  # of the course's recipe, rounded up to whole epochs
TINY_DOCUMENTS, TINY_PEOPLE = 16, 6
SECONDS = 540  # for all parts together; the last one takes what the others leave


# the parts; each runs in a process of its own, which imports torch


def measured(**values: Any) -> None:
    """Prints what a part measured so far, as a line that run_part() reads."""
    print(f"measured {json.dumps(values)}\n", end="", flush=True)  # in one write, so that no other output comes between


def precision() -> str:
    """fp32 or bf16: what this machine trains in."""
    from engine import pick_device, pick_precision

    return pick_precision("auto", pick_device("auto"))


def machine_part(tiny: bool) -> None:
    """Which machine this is."""
    import torch

    from checkpoint import current_commit
    from engine import can_compile
    from records import machine

    measured(
        name=machine(),
        has_gpu=torch.cuda.is_available(),
        can_compile=can_compile(),
        precision=precision(),
        torch=torch.__version__,
        commit=current_commit(),
    )


class PytestCounts:
    """A pytest plugin that counts how tests ended, and says so at once: a part that times out keeps its counts."""

    def __init__(self) -> None:
        self.counts = Counter(passed=0, failed=0, skipped=0)
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or not report.passed:
            self.counts[report.outcome] += 1
        if report.failed:
            self.failed.append(report.nodeid.partition("::")[2])
            print(report.longreprtext)

    def pytest_runtest_logfinish(self) -> None:
        measured(**self.counts)


def tests_part(tiny: bool) -> None:
    """The tests that need a GPU. Without one, those that can run on the CPU do; in bf16 only if it trains in bf16:
    elsewhere that may be emulated, which takes minutes."""
    import pytest

    os.chdir(ROOT)
    counts = PytestCounts()
    options = ["-m", "gpu", "-vv", "-rs", "-p", "no:cacheprovider", *["-k", "not bf16"] * (precision() == "fp32")]
    code = pytest.main([*options, "tests/test_gpu.py"], plugins=[counts])
    if code:
        raise RuntimeError(f"failed: {', '.join(counts.failed)}" if counts.failed else f"pytest ended with {code}")


def text_to_train_on(tiny: bool) -> "CharCorruptionDataset":
    """The project's text, or its first lines."""
    from dataset import CharCorruptionDataset

    text = read_text(str(ROOT / "wiki.txt"))
    return CharCorruptionDataset("\n".join(text.split("\n")[:TINY_DOCUMENTS]) if tiny else text, BLOCK_SIZE)


def step_part(tiny: bool) -> None:
    """A step of each variant by the course's recipe; those that have to be compiled, which takes long, come last."""
    import torch

    from engine import DTYPES, can_compile, matmul_ceiling, pick_device
    from speed import seconds

    device, documents = pick_device("auto"), text_to_train_on(tiny)
    order = torch.arange(len(documents), device=device).split(COURSE.pretrain_batch_size)
    x, _ = documents.batch(order[0])  # warms up
    making = seconds(lambda: [documents.batch(rows) for rows in order], device) / len(order)
    measured(
        matmul_tflops=round(matmul_ceiling(device, DTYPES[precision()]) / 1e12, 2),
        milliseconds_of_making_a_batch=round(1000 * making, 3),
        percent_padding=round(100 * (1 - float(x.count_nonzero() / x.numel())), 1),
    )
    compiles = device.type == "cuda" and can_compile() and not tiny  # runs of tiny sizes are too short for it
    failed = []
    for kind in ("not compiled", "compiled")[: 1 + compiles]:
        for variant in VARIANTS:
            name = f"{variant}, {kind}"
            try:
                measured(**{name: time_steps(variant, documents, kind == "compiled", epochs=1 if tiny else 4)})
            except Exception as error:  # one that does not compile, say
                traceback.print_exc()
                failed.append(f"{name}: {one_line(error)}")
    if failed:
        raise RuntimeError("; ".join(failed))
    if device.type == "cuda" and not compiles and not tiny:
        raise RuntimeError("nothing was compiled: Triton, a C compiler or Python.h is missing")


def time_steps(variant: str, documents: "CharCorruptionDataset", compiles: bool, epochs: int) -> dict[str, float]:
    """How long a step takes, which percentage of the matmul's speed it reaches, and its peak memory."""
    import torch

    from engine import Throughput
    from speed import peak_megabytes, seconds, trainer_of

    gc.collect()  # the trainer of the step before
    before = torch.cuda.memory_allocated()  # 0 without a GPU
    trainer = trainer_of(variant, documents)
    on_gpu = trainer.device.type == "cuda"
    if not compiles:
        trainer.engine.wrapped = trainer.model
    throughput = Throughput(trainer.engine)
    order = torch.arange(len(documents), device=trainer.device)

    def epoch() -> None:
        for x, y in trainer.batches(documents, order):
            trainer.step(x, y)
            throughput.count(x, y)

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    first = seconds(epoch, trainer.device)
    throughput.restart()
    took = seconds(lambda: [epoch() for _ in range(epochs)], trainer.device)
    _, percent_of_ceiling = throughput.read()
    trainer.check_finite()
    steps = epochs * math.ceil(len(documents) / COURSE.pretrain_batch_size)
    return {
        "milliseconds": round(1000 * took / steps, 2),
        "percent_of_ceiling": round(percent_of_ceiling, 1),
        "ceiling_tflops": round(throughput.ceiling / 1e12, 2),
        "peak_mb": round((torch.cuda.max_memory_allocated() - before) / 1e6 if on_gpu else peak_megabytes()),
        "seconds_of_first_epoch": round(first, 1),
    }


def fast_part(tiny: bool) -> None:
    """The fast recipe against the clock, with its accuracy."""
    import experiment
    from records import read_records

    words = f"pretrain_epochs=1 finetune_epochs=1 --people {TINY_PEOPLE}" if tiny else ""
    sys.argv = ["scripts/experiment.py", "run", *words.split()]  # which its record names
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes to experiments/ and expt/
        experiment.main()
        (record,) = read_records(str(experiment.RESULTS))
        os.chdir(ROOT)
    print(json.dumps(record, ensure_ascii=False))
    percent = round(100 * record["correct"] / record["asked"], 2)
    measured(**record["seconds"], correct=record["correct"], asked=record["asked"], percent=percent)


def course_part(tiny: bool) -> None:
    """STEPS steps of the course's recipe, and how long its 650 epochs would take, compiling included."""
    from speed import time_pretraining

    documents = text_to_train_on(tiny)
    steps = math.ceil(len(documents) / COURSE.pretrain_batch_size)  # of an epoch
    epochs = 1 if tiny else math.ceil(STEPS / steps)
    training, first = time_pretraining(documents, epochs)
    measured(
        steps=epochs * steps,
        seconds=round(training, 2),
        seconds_of_first_epoch=round(first, 1),
        minutes_of_all_epochs=round((training / epochs * COURSE.pretrain_epochs + first) / 60, 2),
    )


@dataclass(frozen=True)
class Part:
    """What runs in a process of its own, and for how many seconds at most."""

    function: Callable[[bool], None]  # called with whether the sizes are tiny
    limit: int


PARTS = {
    "machine": Part(machine_part, 200),  # the first import of torch may take long
    "tests": Part(tests_part, 180),
    "fast": Part(fast_part, 120),
    "course": Part(course_part, 100),  # leaves vanilla's compiled kernels in torch's cache, for the next part
    "step": Part(step_part, SECONDS),
}


def one_line(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def run_here(name: str, tiny: bool) -> None:
    """Runs a part in this process; the last line that it prints is the reason if it fails."""
    try:
        PARTS[name].function(tiny)
    except Exception as error:
        traceback.print_exc()
        sys.exit(one_line(error))


# the process that starts the parts


@dataclass(frozen=True)
class Outcome:
    """How a part ended: ok, failed, timed out (with the reason) or not finished; its time, and what it measured."""

    text: str
    seconds: float
    measured: dict[str, Any]


def run_part(command: list[str], limit: float, log: str) -> Outcome:
    """Runs a command that prints to the log. It is killed after `limit` seconds, with all processes it started."""
    begins = os.path.getsize(log)
    started = time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "20"}
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        process.wait(limit)
        text = "ok" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        text = f"timed out after {limit:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)  # a process that waits for a broken driver may not die
    printed = printed_since(begins, log)
    if text != "ok":
        text += f": {last_line(printed)}"
        if process.returncode is not None and process.returncode < 0 and text.startswith("failed"):
            text += f" (signal {-process.returncode})"
    return Outcome(text, time.monotonic() - started, measurements_in(printed))


def printed_since(begins: int, log: str) -> str:
    """What has been printed to the log since it had that many bytes."""
    return read_bytes(log)[begins:].decode(errors="replace")


def last_line(printed: str) -> str:
    """The last line that a part printed, other than its measurements."""
    lines = [line.strip() for line in re.split(r"[\r\n]", printed)]
    return next((line[:300] for line in reversed(lines) if line and not line.startswith("measured {")), "no output")


def measurements_in(printed: str) -> dict[str, Any]:
    """What the lines of measured() say."""
    found: dict[str, Any] = {}
    for values in re.findall(r"measured (\{.*\})$", printed, re.MULTILINE):
        found |= json.loads(values)
    return found


def record_of_parts(outcomes: dict[str, Outcome], tiny: bool) -> dict[str, Any]:
    """The record of a whole run."""
    machine = outcomes["machine"].measured
    problems = [f"{name} {outcome.text}" for name, outcome in outcomes.items() if outcome.text != "ok"]
    values = {name: outcome.measured for name, outcome in outcomes.items()}
    return commit_and_note(machine["commit"], *problems) | {
        "machine": machine["name"],
        "experiment": "gpu_tiny" if tiny else "gpu",
        "command": "bash scripts/gpu.sh" + " --tiny" * tiny,
        "precision": machine["precision"],
        "corpus": "embedded",
        "measured": values
        | {
            "parts": {name: outcome.text for name, outcome in outcomes.items()},
            "seconds_of_parts": {name: round(outcome.seconds) for name, outcome in outcomes.items()},
        },
        "status": "failed" if problems else "ok",
        "implementation": "ours",
    }


def best_step(steps: dict[str, Any]) -> float | None:
    """The largest percentage of the matmul's speed that a step reached."""
    return max((kind["percent_of_ceiling"] for kind in steps.values() if isinstance(kind, dict)), default=None)


def target_lines(values: dict[str, Any]) -> list[str]:
    """The measurements that have a target, beside it."""
    fast, course, best = values["fast"], values["course"], best_step(values["step"])
    rows = [
        ("the fast recipe, s", fast.get("total"), "at most", 60),
        ("the course's 650 epochs, min", course.get("minutes_of_all_epochs"), "at most", 5),
        ("a step's best % of a bf16 matmul's speed", best, "at least", 30),
    ]
    lines = [f"{'':42}{'measured':>10}  target"]
    for title, value, kind, bound in rows:
        met = value is not None and (value <= bound if kind == "at most" else value >= bound)
        verdict = "not measured" if value is None else "met" if met else "missed"
        lines.append(f"{title:42}{'' if value is None else value:>10}  {kind} {bound}: {verdict}")
    return lines


def step_lines(steps: dict[str, Any]) -> list[str]:
    """The times of a training step, as a table."""
    lines = [f"{'a training step':28}{'ms':>9}{'% of the ceiling':>18}{'peak MB':>9}"]
    for name, kind in steps.items():
        if isinstance(kind, dict):
            lines.append(f"{name:28}{kind['milliseconds']:9}{kind['percent_of_ceiling']:18}{kind['peak_mb']:9}")
    others = ", ".join(f"{name} {value}" for name, value in steps.items() if not isinstance(value, dict))
    return [*lines, others]


def run_all(folder: Path, tiny: bool) -> bool:
    """Runs all parts and adds a record. What they print is in gpu.log in the folder, with a summary at its end.

    Returns whether every part went well. A run that is stopped early also leaves a record, of what it has measured.
    """
    log = str(folder / "gpu.log")
    with writing(f"{log}:"):
        Path(log).write_bytes(b"")

    def say(text: str) -> None:
        print(text, flush=True)
        with open(log, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    ends = time.monotonic() + SECONDS

    def run(name: str) -> Outcome:
        limit = max(1, min(PARTS[name].limit, ends - time.monotonic()))
        say(f"== {name}: at most {limit:.0f} s")
        command = [sys.executable, str(Path(__file__).resolve()), "--part", name, *["--tiny"] * tiny]
        outcome = run_part(command, limit, log)
        say(f"{name}: {outcome.text}, {outcome.seconds:.0f} s {json.dumps(outcome.measured)}")
        return outcome

    machine = run("machine")
    if machine.text != "ok":
        failed = machine.text.startswith("failed")
        advice = "point PYTHON at a Python with torch 2.9 or newer" if failed else "run it again: importing takes long"
        raise UserError(f"{sys.executable}: {machine.text}; {advice}")
    if not machine.measured["has_gpu"] and not tiny:
        tiny = True
        say("no GPU: all sizes are tiny, and the figures mean nothing")
    others = [name for name in PARTS if name != "machine"]
    outcomes = {"machine": machine} | {name: Outcome("not finished", 0.0, {}) for name in others}
    try:
        for name in others:
            begins = os.path.getsize(log)
            outcomes[name] = run(name)
    except BaseException:  # Ctrl-C, say, in this part
        outcomes[name] = Outcome("not finished", 0.0, measurements_in(printed_since(begins, log)))
        raise
    finally:
        record = record_of_parts(outcomes, tiny)
        targets = ["tiny sizes have no targets"] if tiny else target_lines(record["measured"])
        say("\n".join(["", *step_lines(record["measured"]["step"]), "", *targets]))
        say(f"Log: {log}")
        for path in [folder / "speed.jsonl"] + [ROOT / "results/speed.jsonl"] * (not tiny):
            append_record(str(path), record)
            say(f"Record added to {path}")
    return record["status"] == "ok"


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--out",
        default=os.environ.get("OUT") or None,
        help="folder for the log and the record (default: the environment variable OUT, or else experiments/)",
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, even if there is a GPU")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_here(arguments.part, arguments.tiny)
        return
    for number in heeded_signals("SIGTERM", "SIGHUP"):  # run_part() then ends its process, too
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    folder = Path(arguments.out or ROOT / "experiments").resolve()
    check_folder(folder, "name another with --out")
    if folder == ROOT / "results":
        parser.error(f"--out {arguments.out}: the record of a GPU is added there in any case; name another folder")
    with writing(f"{folder}:"):
        folder.mkdir(parents=True, exist_ok=True)
    with dropping_output():  # a closed terminal must not cost the record
        went_well = run_all(folder, arguments.tiny)
    if not went_well:
        sys.exit(1)


if __name__ == "__main__":
    exit_on_user_error(main)

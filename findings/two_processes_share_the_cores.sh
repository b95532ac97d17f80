#!/usr/bin/env bash
# Two torch processes that share all cores each take four times as long as one alone, not twice as long.
#
# Versions    torch 2.13.0 (CPU), with the libgomp it brings; Linux, 2 cores
# Prediction  none was written down. One would expect what taking turns costs: twice the time
# Output      matmuls and GELUs in two threads: one process 0.8 s, two at once 3.0 s. With GOMP_SPINCOUNT=0
#             1.2 s alone and 1.6 s at once; with one thread per process 1.6 and 1.5 s
# Cause       After each operation, OpenMP's threads wait for the next one, and for each other, in a busy loop. A thread
#             that spins uses up the time in which the thread that it waits for could run.
# Remedy      One process at a time, or OMP_NUM_THREADS set so that all threads fit on the cores, or GOMP_SPINCOUNT=0,
#             with which a process that runs alone takes half as long again. Two trainings of a GPT of 3.3 million
#             parameters slowed each other down by 5 to 10.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$dir/work.py" <<'PY'
"""Says when it is ready, waits for a line, works, and prints the seconds."""
import time

import torch

x, weight = torch.randn(512, 256), 0.05 * torch.randn(256, 256)


def work(repeats):
    for _ in range(repeats):
        y = x
        for _ in range(20):
            y = torch.nn.functional.gelu(y @ weight)


work(5)
print("ready", flush=True)
input()
start = time.perf_counter()
work(100)
print(time.perf_counter() - start)
PY
"$dir/venv/bin/python" - "$dir/work.py" <<'PY'
import os
import subprocess
import sys


def seconds(processes, **variables):
    """The longest time of so many processes that start together."""
    command, pipe = [sys.executable, sys.argv[1]], subprocess.PIPE
    started = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | variables)
        for _ in range(processes)
    ]
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in started)


times = {}
for name, variables in {
    "as it is": {},
    "GOMP_SPINCOUNT=0": {"GOMP_SPINCOUNT": "0"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}.items():
    times[name] = seconds(1, **variables), seconds(2, **variables)
    print(f"{name}: one process {times[name][0]:.1f} s, two at once {times[name][1]:.1f} s")
alone, together = times["as it is"]
slow = together > 2.6 * alone and together > 1.3 * times["GOMP_SPINCOUNT=0"][1]
sys.exit(0 if slow else "the behavior has changed")
PY

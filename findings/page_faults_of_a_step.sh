#!/usr/bin/env bash
# Each training step faults in thousands of memory pages again, freed by the step before.
#
# Versions    torch 2.13.0 (CPU), one thread, Linux with glibc 2.36
# Prediction  written before the run: "Forward and backward of an MLP, activations of 8 MB: < 500 a step", since glibc
#             raises its threshold for returning memory with what is freed, up to 32 MB
# Output      2,200 to 2,700 page faults a step after ten steps; 50 to 400 with M_TRIM_THRESHOLD and
#             M_MMAP_THRESHOLD raised by mallopt
# Cause       glibc returns the top of the heap as soon as some tens of MB are free there, which is so after each
#             backward. The next step gets the pages back one by one, zeroed.
# Remedy      mallopt as below, or MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ in the environment. In a GPT of 3.3
#             million parameters it was 10,000 faults a step, 25 of 410 ms.
# Fails when  a step has fewer than 500 faults, or mallopt does not avoid half of them.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import ctypes
import resource
import sys

import torch
import torch.nn as nn

torch.set_num_threads(1)
layers = [nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256)) for _ in range(4)]
model = nn.Sequential(*layers)
x = torch.randn(2048, 256)  # so each hidden activation has 8 MB


def faults(steps=10):
    """Page faults a step, once ten steps are done."""
    counts = []
    for _ in range(10 + steps):
        model(x).square().mean().backward()
        model.zero_grad()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return (counts[-1] - counts[-1 - steps]) / steps


before = faults()
mallopt, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = ctypes.CDLL(None).mallopt, -1, -3
mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
mallopt(M_MMAP_THRESHOLD, 2**30)
after = faults()
print(f"{before:.0f} page faults a step, {after:.0f} if freed memory is kept")
sys.exit(0 if before > 500 and after < before / 2 else "the behavior has changed")
PY

#!/usr/bin/env bash
# torch.compile makes large fp32 sums on a CPU less exact: five hundred times the error of eager mode.
#
# Versions    torch 2.13.0 (CPU), one thread; needs a C++ compiler
# Prediction  written before the run: "torch.compile'd sum of 10**8 fp32 values 0.1: relative error below 1e-5, as
#             eager"
# Output      relative error: eager 1.1e-7, compiled 6.5e-5; of a mean over 10**7 columns: eager 6.0e-7, compiled 6.4e-5
# Cause       Likely: Eager mode adds in a cascade of partial sums. The compiled loop keeps one fp32 sum for each lane
#             of a vector, whose rounding grows with the length.
# Remedy      Sum in fp64: x.sum(dtype=torch.float64), which costs little where memory is the limit.
# Fails when  the compiled sum's error is less than 20 times that of eager mode.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
TORCHINDUCTOR_CACHE_DIR="$dir/cache" "$dir/venv/bin/python" - <<'PY'
import sys

import torch

torch.set_num_threads(1)
changed = False
for name, function, x in (
    ("sum of 10**8 numbers", lambda x: x.sum(), torch.full((10**8,), 0.1)),
    ("mean over 10**7 columns", lambda x: x.mean(1)[0], torch.full((4, 10**7), 0.1)),
):
    exact = function(x.double()).item()
    eager, compiled = (abs(f(x).item() / exact - 1) for f in (function, torch.compile(function)))
    print(f"{name}: relative error {eager:.1e} in eager mode, {compiled:.1e} compiled")
    changed |= compiled < 20 * eager
sys.exit("the behavior has changed" if changed else 0)
PY

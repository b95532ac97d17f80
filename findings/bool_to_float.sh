#!/usr/bin/env bash
# A bool tensor becomes a float tensor far more slowly than the same bytes seen as int8.
#
# Versions    torch 2.13.0 (CPU), one thread; measured on an AMD EPYC with AVX-512
# Prediction  written before the run: "bool -> float32 takes as long as int8 -> float32 (0.8 to 1.5 times)"
# Output      5 to 8 times as long to fp32, 8 times to bf16, with bitwise the same result
# Cause       Likely: The conversion from int8 is vectorized, the one from bool is not.
# Remedy      mask.view(torch.int8).to(dtype): a bool holds 0 or 1. For masks that are applied in each step, such as
#             dropout's.
# Fails when  bool takes less than twice as long.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys
import time

import torch

torch.manual_seed(0)
torch.set_num_threads(1)
mask = torch.rand(2048, 1024) < 0.5


def fastest(functions, rounds=40):
    """Seconds of the fastest call of each function; they take turns, so that other load falls on all of them."""
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
    return [min(seconds) for seconds in times]


slower = True
for dtype in (torch.float32, torch.bfloat16):
    from_bool, from_int8 = fastest([lambda: mask.to(dtype), lambda: mask.view(torch.int8).to(dtype)])
    assert mask.to(dtype).equal(mask.view(torch.int8).to(dtype))
    print(f"to {dtype}: bool takes {from_bool / from_int8:.1f} times as long as int8")
    slower &= from_bool > 2 * from_int8
sys.exit(0 if slower else "the behavior has changed")
PY

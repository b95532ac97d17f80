#!/usr/bin/env bash
# Creating any optimizer imports torch._dynamo and sympy: a second and 70 MB, even if nothing is ever compiled.
#
# Versions    torch 2.13.0 (CPU)
# Prediction  none was written down. One would expect SGD of one parameter to take no time and no memory
# Output      0.9 to 1.5 s and 72 MB for the first optimizer of a process, about a third of what `import torch` takes;
#             the second one takes 0.05 ms. 800 modules are imported, 400 of them of sympy
# Cause       Optimizer.add_param_group is decorated with torch._disable_dynamo, which imports torch._dynamo in the first
#             call. torch._dynamo imports torch.fx's symbolic shapes, and these import sympy.
# Matters     for scripts and tests that train for seconds, and for what a process seems to need before it trains.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys
import time

import torch


def megabytes():
    """The memory of this process."""
    with open("/proc/self/status") as status:
        return int(status.read().split("VmRSS:")[1].split()[0]) / 1e3


parameter = torch.nn.Parameter(torch.zeros(1))
for number in ("first", "second"):
    modules, memory, start = set(sys.modules), megabytes(), time.perf_counter()
    torch.optim.SGD([parameter], lr=0.1)
    seconds, memory = time.perf_counter() - start, megabytes() - memory
    new = set(sys.modules) - modules
    of_sympy = sum(name.split(".")[0] == "sympy" for name in new)
    print(f"{number} optimizer: {1000 * seconds:.2f} ms, {memory:.0f} MB, {len(new)} modules, {of_sympy} of sympy")
    if number == "first":
        changed = memory < 30 or "torch._dynamo" not in new or of_sympy == 0
sys.exit("the behavior has changed" if changed else 0)
PY

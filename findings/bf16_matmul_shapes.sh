#!/usr/bin/env bash
# On a CPU, each new shape of a bf16 matmul costs more than half a megabyte of memory, until there are about a thousand,
# and more time than the matmul itself.
#
# Versions    torch 2.13.0 (CPU), x86 with AVX-512; times measured with AMX
# Prediction  none was written down. One would expect what fp32 shows: no growth, and the first time as fast as later
# Output      800 shapes, one thread: 0 to 3 MB in fp32, 440 to 600 MB in bf16; 30 to 63 MB in bf16 with the two
#             limits below. The first time takes 10 to 21 times as long as later in bf16, and just as long in fp32
# Cause       oneDNN compiles a kernel for each shape and keeps the last 1,024 of them. torch calls it through ideep,
#             which keeps 1,024 more objects in each thread, and with them what oneDNN would drop.
# Remedy      few shapes: round up the number of rows. ONEDNN_PRIMITIVE_CACHE_CAPACITY and LRU_CACHE_CAPACITY (ideep's,
#             undocumented), set in the environment before the first matmul, save the memory. But if they are smaller
#             than the number of shapes in use, the kernels are compiled again and again: a GPT of 3.3 million
#             parameters uses 340 shapes in a training step; with room for 128, 173 kernels are compiled in every step,
#             which takes 0.34 s of the step's 1.5 s of CPU time.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$dir/shapes.py" <<'PY'
import sys
import time

import torch
from torch.nn.functional import linear

torch.set_num_threads(1)
if torch.backends.cpu.get_cpu_capability() != "AVX512":
    sys.exit("not measured: this CPU has no AVX-512")
rows, wide, narrow = torch.randn(464, 256), torch.randn(1024, 256), torch.randn(256, 1024)


def megabytes():
    """The memory of this process."""
    with open("/proc/self/status") as status:
        return int(status.read().split("VmRSS:")[1].split()[0]) / 1e3


def all_shapes(x, first, second):
    """The seconds of two matmuls for each of 400 numbers of rows."""
    start = time.perf_counter()
    for n in range(64, 464):
        linear(linear(x[:n], first), second)
    return time.perf_counter() - start


def growth(dtype):
    """The megabytes added by all shapes, and how many times as long they take for the first time."""
    matrices = [matrix.to(dtype) for matrix in (rows, wide, narrow)]
    x, first, second = matrices
    linear(linear(x, first), second)  # the shape with the most rows
    before = megabytes()
    seconds = all_shapes(*matrices)
    return megabytes() - before, seconds / min(all_shapes(*matrices) for _ in range(3))


(in_fp32, fp32_times), (in_bf16, bf16_times) = growth(torch.float32), growth(torch.bfloat16)
print(f"800 shapes: {in_fp32:.0f} MB more in fp32, {in_bf16:.0f} MB more in bf16")
print(f"the first time takes {fp32_times:.1f} times as long in fp32, {bf16_times:.1f} times in bf16")
grows = sys.argv[1] == "grows"
as_before = in_fp32 < 10 and (in_bf16 > 200) == grows and (in_bf16 < 120) != grows
if grows and torch.cpu.get_capabilities()["amx_bf16"]:
    as_before = as_before and bf16_times > 1.5 * fp32_times
sys.exit(0 if as_before else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/shapes.py" grows
ONEDNN_PRIMITIVE_CACHE_CAPACITY=32 LRU_CACHE_CAPACITY=32 "$dir/venv/bin/python" "$dir/shapes.py" stays

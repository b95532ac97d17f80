#!/usr/bin/env bash
# On a CPU, each new shape of a bf16 matmul costs more than half a megabyte of memory, until there are about a thousand.
#
# Versions    torch 2.13.0 (CPU), x86 with AVX-512
# Prediction  none was written down. One would expect what fp32 shows: no growth
# Output      800 shapes, one thread: 0 MB in fp32, 440 to 540 MB in bf16; 30 MB in bf16 with the two limits below
# Cause       oneDNN compiles a kernel for each shape and keeps the last 1,024 of them. torch calls it through ideep,
#             which keeps 1,024 more objects in each thread, and with them what oneDNN would drop.
# Remedy      ONEDNN_PRIMITIVE_CACHE_CAPACITY and LRU_CACHE_CAPACITY (ideep's, undocumented) in the environment, before
#             the first matmul; or fewer lengths, by padding. Training a GPT of 3.3 million parameters on micro-batches
#             of 16 lengths in two threads took 150 MB less, and 1 % more time.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$dir/shapes.py" <<'PY'
import sys

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


def growth(dtype):
    """The megabytes added by two matmuls for each of 400 numbers of rows, after the one with the most rows."""
    x, first, second = (matrix.to(dtype) for matrix in (rows, wide, narrow))
    linear(linear(x, first), second)
    before = megabytes()
    for n in range(64, 464):
        linear(linear(x[:n], first), second)
    return megabytes() - before


in_fp32, in_bf16 = growth(torch.float32), growth(torch.bfloat16)
print(f"800 shapes: {in_fp32:.0f} MB more in fp32, {in_bf16:.0f} MB more in bf16")
grows = sys.argv[1] == "grows"
sys.exit(0 if in_fp32 < 10 and (in_bf16 > 200) == grows and (in_bf16 < 80) != grows else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/shapes.py" grows
ONEDNN_PRIMITIVE_CACHE_CAPACITY=32 LRU_CACHE_CAPACITY=32 "$dir/venv/bin/python" "$dir/shapes.py" stays

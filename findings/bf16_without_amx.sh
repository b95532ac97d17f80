#!/usr/bin/env bash
# On Intel's Emerald Rapids, bf16 matmuls with AVX-512 BF16 are slower than fp32: only AMX makes them faster.
#
# Versions    torch 2.13.0 (CPU), Intel Xeon (Emerald Rapids); not tried on Cooper Lake, which has no AMX
# Prediction  none was written down. One would expect bf16 to be twice as fast as fp32, as on AMD's Zen 4 and 5, since
#             an instruction multiplies twice as many numbers
# Output      one thread, 1,024 x 256 by 256 x 1,024: fp32 122 to 160 GFLOP/s, bf16 with AMX 5.9 to 7.1 times as many,
#             bf16 without AMX 0.54 to 0.56 times as many
# Cause       the instruction VDPBF16PS runs at a quarter to a third of the rate of an fp32 multiply-add, and does only
#             twice as much: in registers alone, compiled by gcc, 0.8 to 0.9 of them complete per nanosecond, compared
#             with 2.6 to 3.2 of VFMADD231PS
# Matters     on virtual machines that hide AMX, for programs that choose bf16 wherever the CPU lists AVX-512 BF16: a
#             training step of a GPT of 3.3 million parameters took 1.3 times as long as in fp32
# Source      a pull request of libxsmm/tpp-mlir (1025) expects the same factor of 2
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$dir/speed.py" <<'PY'
import sys
import time

import torch

torch.set_num_threads(1)
has = torch.cpu.get_capabilities()
if "Intel" not in has["cpu_name"] or not has["avx512_bf16"]:
    sys.exit("not measured: this is no Intel CPU with AVX-512 BF16")


def multiply(dtype):
    """A function that multiplies two matrices of this dtype and returns how many seconds that took."""
    a, b = torch.randn(1024, 256).to(dtype), torch.randn(256, 1024).to(dtype)

    def seconds():
        start = time.perf_counter()
        a @ b
        return time.perf_counter() - start

    return seconds


kinds = {"fp32": multiply(torch.float32), "bf16": multiply(torch.bfloat16)}
best = {name: float("inf") for name in kinds}
for _ in range(100):  # by turns, so that other load falls on both
    for name, seconds in kinds.items():
        best[name] = min(best[name], seconds())
speed = {name: 2 * 1024 * 256 * 1024 / seconds / 1e9 for name, seconds in best.items()}
ratio = speed["bf16"] / speed["fp32"]
print(f"{sys.argv[1]}: fp32 {speed['fp32']:.0f} GFLOP/s, bf16 {speed['bf16']:.0f}: {ratio:.2f} times as fast")
as_before = ratio < 0.8 if sys.argv[1] == "without AMX" else ratio > 2 or not has["amx_bf16"]
sys.exit(0 if as_before else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/speed.py" "all instructions"
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 "$dir/venv/bin/python" "$dir/speed.py" "without AMX"

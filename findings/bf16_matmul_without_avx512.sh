#!/usr/bin/env bash
# torch.optim.Muon is some forty times slower on a CPU without AVX-512, even if everything else runs in fp32.
#
# Versions    torch 2.13.0 (CPU), x86
# Prediction  written before the run: "without oneDNN, a step of Muon takes ten times as long"
# Output      one thread, a matmul of 256 x 256: 0.3 ms in fp32, 10 ms in bf16, 2 ms if the second factor is transposed;
#             a step of Muon on eight such matrices: 23 ms with oneDNN, 920 ms without
# Cause       Muon orthogonalizes in bf16, whatever the dtype of the parameters. torch passes bf16 matmuls to oneDNN only
#             on CPUs with AVX-512; elsewhere they run in a loop of its own, in one thread and hardly vectorized.
# Emulation   Turning oneDNN off and choosing the AVX2 kernels leads to that loop on any x86 CPU. fp32 matmuls do not
#             use oneDNN. Under QEMU's Haswell, torch calls no oneDNN for this matmul (ONEDNN_VERBOSE=1); others have
#             measured 1.3 GFLOP/s in bf16 on a CPU with AVX2 only (tenstorrent/tt-mlir#7501).
# Remedy      orthogonalize in fp32 where bf16 is slow. For a GPT of 3.3 million parameters a step of Muon then takes
#             0.12 s instead of 7.4 s on two cores, where forward and backward take 0.5 s.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
ATEN_CPU_CAPABILITY=avx2 "$dir/venv/bin/python" - <<'PY'
import sys
import time

import torch

torch.set_num_threads(1)
torch.manual_seed(0)


def milliseconds(function, times=5):
    """The shortest time of a few calls, after one that warms up."""
    function()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        taken.append(1e3 * (time.perf_counter() - start))
    return min(taken)


fp32 = torch.randn(256, 256)
bf16 = fp32.bfloat16()
parameters = [torch.nn.Parameter(torch.randn(256, 256)) for _ in range(8)]
for parameter in parameters:
    parameter.grad = torch.randn(256, 256)
muon = torch.optim.Muon(parameters, lr=0.02)

with_onednn = milliseconds(muon.step)
torch.backends.mkldnn.set_flags(False)
in_fp32, in_bf16 = milliseconds(lambda: fp32 @ fp32), milliseconds(lambda: bf16 @ bf16)
transposed = milliseconds(lambda: bf16 @ bf16.T)
without = milliseconds(muon.step, times=2)
print(f"256 x 256 matmul: fp32 {in_fp32:.2f} ms, bf16 {in_bf16:.2f} ms, bf16 with a transposed factor {transposed:.2f} ms")
print(f"step of Muon on 8 matrices: {with_onednn:.0f} ms with oneDNN (if this CPU has AVX-512), {without:.0f} ms without")
sys.exit(0 if in_bf16 > 8 * in_fp32 and without > 8 * 8 * 15 * in_fp32 else "the behavior has changed")
PY

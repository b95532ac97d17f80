#!/usr/bin/env bash
# In bf16 on a CPU, softmax over 127 columns is much slower than over 128. log_softmax is not, so its exp is the faster
# softmax.
#
# Versions    torch 2.13.0 (CPU), one thread; measured on an AMD EPYC with AVX-512
# Prediction  written before the run: "softmax in bf16, n not a multiple of 32 costs up to 2.5 times; log_softmax and
#             layer_norm the same" (that softmax does was known from this project's profile). Nothing was expected in
#             fp32.
# Output      time over 127 columns / time over 128: softmax 2.4, log_softmax 1.1; amax 3.0 to 6.4 even in fp32
#             log_softmax(x).exp() over 127 columns takes 0.6 to 0.65 of softmax's time
# Cause       Likely: What is left after whole vectors is computed one by one, in some kernels: 31 of 127 numbers in
#             bf16, where a vector of AVX-512 holds 32, 15 in fp32.
# Remedy      Softmax with dtype=torch.float32, or exp of log_softmax, or lengths that are multiples of 32.
# Fails when  softmax over 127 columns takes less than 1.5 times as long as over 128, log_softmax more than 1.4 times,
#             or amax in fp32 less than 1.5 times. Needs AVX-512 for these numbers.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys
import time

import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
if torch.backends.cpu.get_cpu_capability() != "AVX512":
    sys.exit("not measured: this CPU has no AVX-512")


def fastest(functions, rounds=40):
    """Seconds of the fastest call of each function; they take turns, so that other load falls on all of them."""
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
    return [min(seconds) for seconds in times]


def ratio(function, dtype):
    """The time over 127 columns, as times the time over 128."""
    odd, even = torch.randn(8192, 127).to(dtype), torch.randn(8192, 128).to(dtype)
    times = fastest([lambda: function(odd), lambda: function(even)])
    return times[0] / times[1]


softmax = ratio(lambda x: F.softmax(x, -1), torch.bfloat16)
log_softmax = ratio(lambda x: F.log_softmax(x, -1), torch.bfloat16)
amax = ratio(lambda x: x.amax(-1), torch.float32)
print(f"127 columns / 128: in bf16 softmax {softmax:.2f}, log_softmax {log_softmax:.2f}; in fp32 amax {amax:.2f}")
x = torch.randn(8192, 127).bfloat16()
direct, by_log = fastest([lambda: F.softmax(x, -1), lambda: F.log_softmax(x, -1).exp_()])
print(f"log_softmax(x).exp() over 127 columns takes {by_log / direct:.2f} of softmax's time")
sys.exit(0 if softmax > 1.5 and log_softmax < 1.4 and amax > 1.5 else "the behavior has changed")
PY

#!/usr/bin/env bash
# Layer norm's weight and bias gradients are wrong for bf16 inputs on a CPU, even if the parameters are fp32.
#
# Versions    torch 2.13.0 (CPU), 2 threads, x86-64
# Prediction  written before the run: "4,096 ones added up in bf16 (...): sum, mean, ..., linear's bias grad, layer
#             norm's weight and bias grad, ...: right within 0.5 %", because PyTorch adds bf16 numbers up in fp32
# Output      bias gradient, 4,096 rows, each 1:    linear 4096, RMS norm's weight 4096, layer norm 512
#                        65,536 rows:               linear 65536, layer norm 512
#                        16,384 rows, autocast, fp32 parameters: 512, in an fp32 tensor
#             random gradients of mean 0.1, 16,384 rows: 23 % off
# Cause       Each thread adds its rows up in bf16. 256 + 1 is 256 in bf16, so a sum of ones stops at 256 a thread; a
#             sum of random numbers loses more with each row. The result depends on the number of threads.
# Remedy      Give layer norm fp32 inputs (x.float()), or use RMS norm, or torch.compile, which adds in fp32.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
import torch.nn as nn

torch.manual_seed(0)
torch.set_num_threads(2)


def bias_gradient(layer, rows, dtype):
    """The gradient of the layer's last parameter, one element of it, when each of `rows` rows adds 1 to it."""
    y = layer(torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=dtype).repeat(rows, 1))
    y.backward(torch.ones_like(y))
    return list(layer.parameters())[-1].grad[0].item()


wrong = True
for rows in (4096, 65536):
    linear = bias_gradient(nn.Linear(4, 4, dtype=torch.bfloat16), rows, torch.bfloat16)
    rms = bias_gradient(nn.RMSNorm(4, dtype=torch.bfloat16), rows, torch.bfloat16)
    norm = bias_gradient(nn.LayerNorm(4, dtype=torch.bfloat16), rows, torch.bfloat16)
    print(f"{rows} rows of ones in bf16: linear {linear:.0f}, RMS norm {rms:.0f}, layer norm {norm:.0f}")
    wrong &= linear == rms == rows and norm <= 1024

layer = nn.LayerNorm(256)  # fp32
with torch.autocast("cpu", torch.bfloat16):
    y = layer(torch.randn(16384, 256, dtype=torch.bfloat16))
y.backward(torch.ones_like(y))
print(f"16384 rows of ones, fp32 parameters under autocast: {layer.bias.grad[0]:.0f} ({layer.bias.grad.dtype})")
wrong &= layer.bias.grad[0].item() <= 1024

layer.zero_grad()
x, gradient = torch.randn(16384, 256).bfloat16(), (0.1 + torch.randn(16384, 256)).bfloat16()
layer(x).backward(gradient)
exact = gradient.double().sum(0)
error = ((layer.bias.grad - exact).norm() / exact.norm()).item()
print(f"16384 random rows of mean 0.1: the bias gradient is {error:.0%} off")
wrong &= error > 0.05
sys.exit(0 if wrong else "the behavior has changed")
PY

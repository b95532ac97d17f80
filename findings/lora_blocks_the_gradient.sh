#!/usr/bin/env bash
# lora-pytorch lets no gradient through the layers that it wraps: at first, only the last layer learns.
#
# Versions    lora-pytorch 0.2.0, torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect what every other frozen layer does: it
#             does not change, but passes the gradient on to the layers before it.
# Output      a pretrained residual network with 8 wrapped layers: the first gradient is exactly 0 in all but the last.
#             After 150 steps of finetuning on another rule of arithmetic 52 % of the answers are right (loss 1.40),
#             with the remedy below 100 % (0.08)
# Cause       A wrapped layer (linear, embedding, convolution) calls the frozen module without autograd, and adds the
#             low-rank part, so only that part passes a gradient on. It starts at 0 in each layer. Later, all that the
#             layers before the head learn from is what the head's low-rank part lets through. MultiheadAttention adds
#             up the weights instead (its source was read, it was not run).
# Matters     for all finetuning with this library. The forward pass is right and the loss falls, so it looks like too
#             low a rank or learning rate.
# Remedy      Freeze the weights with requires_grad_(False), and replace LoRA.forward by `forward` below, which
#             calls the module with autograd.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 lora-pytorch==0.2.0
"$dir/venv/bin/python" - <<'PY'
import copy
import sys

import torch
from lora_pytorch import LoRA
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
N, WIDTH = 23, 64
PAIRS = torch.cartesian_prod(torch.arange(N), torch.arange(N))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256), nn.Linear(256, WIDTH)

    def forward(self, x):
        return x + self.narrow(F.gelu(self.wide(self.norm(x))))


def train(model, answers):
    """150 steps; the loss and the share of right answers afterwards."""
    optimizer = torch.optim.Adam([weights for weights in model.parameters() if weights.requires_grad], 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(PAIRS), answers).backward()
        optimizer.step()
    logits = model(PAIRS)
    return F.cross_entropy(logits, answers).item(), (logits.argmax(-1) == answers).float().mean().item()


def forward(self, x, *args, **options):
    """What a wrapped layer gives, with a gradient through its frozen weights."""
    y = self.module(x, *args, **options)
    return y + self.lora_module(x) if self.enabled and self.lora_module is not None else y


torch.manual_seed(0)
first, second = PAIRS.T
network = nn.Sequential(
    nn.Embedding(N, WIDTH // 2), nn.Flatten(), Block(), Block(), Block(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, N)
)
train(network, (2 * second - first) % N)
network.requires_grad_(False)
answers = (first + 2 * second + 5) % N
zeros, right = {}, {}
for name, method in (("the library", LoRA.forward), ("the remedy", forward)):
    LoRA.forward = method
    torch.manual_seed(0)
    model = LoRA.from_module(copy.deepcopy(network), rank=4)
    F.cross_entropy(model(PAIRS), answers).backward()
    gradients = {layer: weights.grad for layer, weights in model.named_parameters() if "out_proj" in layer}
    zeros[name] = [layer for layer, gradient in gradients.items() if not gradient.any()]
    loss, right[name] = train(model, answers)
    print(f"{name}: the first gradient is 0 in {len(zeros[name])} of {len(gradients)} layers; ", end="")
    print(f"after 150 steps {right[name]:.0%} right, loss {loss:.2f}")
held = len(zeros["the library"]) == 7 and not any(layer.startswith("module.6.") for layer in zeros["the library"])
held &= not zeros["the remedy"] and right["the library"] < right["the remedy"] - 0.2
sys.exit(0 if held else "the behavior has changed")
PY

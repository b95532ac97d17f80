#!/usr/bin/env bash
# agc-optims' adaptive gradient clipping enlarges every small gradient to the limit.
#
# Versions    agc-optims 0.0.2, torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect that a gradient within the limit stays
#             as it is.
# Output      norm of the gradient before and after, at a limit of 0.74: 1.7e-5, 1.7e-3 and 0.17 all become 0.74, as do
#             17 and 1,700. Least squares without noise, 2,000 steps of SGD: the loss ends at 0.012; with the same limit
#             by the formula at 4.5e-12, and without one at 4.8e-12
# Cause       The gradient is scaled in place, and so is the limit that it is then compared with: whichever side of the
#             comparison is taken, it is the scaled gradient.
# Matters     for SGD most: steps have the same size however near the minimum is, so the loss stops falling. Optimizers
#             that divide by an average of gradients lose what the size of a gradient tells. The library's README
#             reports that SGD gets worse with it.
# Remedy      none in the settings; clip before step() with other code.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/pip" install --quiet --no-deps agc-optims==0.0.2
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from agc_optims.clipper import AGC
from torch import nn

torch.set_num_threads(1)
CLIPPING = 0.16


def before_and_after(scale):
    """The norms of the gradient of a loss times `scale`, and of what is left for the optimizer."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 64, bias=False)
    optimizer = AGC(optimizer=torch.optim.SGD(layer.parameters(), lr=0.1), clipping=CLIPPING)
    (scale * layer(torch.randn(256, 64)).square().mean()).backward()
    before = layer.weight.grad.norm().item()
    optimizer.step()
    return before, layer.weight.grad.norm().item()


@torch.no_grad()
def clip(weights):
    """Columns of the gradient are at most CLIPPING times as long as those of the weights."""
    limit = CLIPPING * weights.norm(dim=0).clamp(min=1e-3)
    weights.grad *= (limit / weights.grad.norm(dim=0).clamp(min=1e-6)).clamp(max=1)


def last_loss(kind):
    """The loss after 2,000 steps."""
    torch.manual_seed(0)
    x = torch.randn(256, 16)
    y = x @ torch.randn(16, 8)
    layer = nn.Linear(16, 8, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    if kind == "the library":
        optimizer = AGC(optimizer=optimizer, clipping=CLIPPING)
    for _ in range(2000):
        optimizer.zero_grad()
        loss = (layer(x) - y).square().sum(1).mean()
        loss.backward()
        if kind == "the formula":
            clip(layer.weight)
        optimizer.step()
    return loss.item()


changed = False
print("norm of the gradient before and after")
for scale in (1e-4, 1e-2, 1, 100, 1e4):
    before, after = before_and_after(scale)
    print(f"{before:10.2g}{after:10.2g}")
    changed |= not 0.7 < after < 0.8
print("loss after 2,000 steps of SGD, clipped by")
for kind, converges in (("nothing", True), ("the formula", True), ("the library", False)):
    loss = last_loss(kind)
    print(f"{kind:12}{loss:10.2g}")
    changed |= (loss < 1e-6) != converges
sys.exit("the behavior has changed" if changed else 0)
PY

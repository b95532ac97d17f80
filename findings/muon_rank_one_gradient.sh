#!/usr/bin/env bash
# torch.optim.Muon turns a gradient of rank 1 into an update that is mostly rounding noise.
#
# Versions    torch 2.13.0 (CPU); the arithmetic is the same on every device
# Prediction  written before the run: "Muon on a rank-1 gradient (256x256): one singular value 0.7..1.2; the sum of
#             squares of all others below 1 % of the update's"
# Output      all singular values but the largest hold 72 % of the sum of squares; for rank 8, all but eight hold 15 %.
#             The same five Newton-Schulz steps in fp64: 0 %.
# Cause       Muon rounds the gradient to bf16 before it orthogonalizes it. The rounding has full rank, and five steps
#             multiply a small singular value by 3.4445**5 = 485. A gradient of rank 1 that bf16 holds exactly stays
#             clean.
# Matters     for gradients of few tokens or samples; those of a small GPT (8 to 128 rows of text) come out 3 to 10 %
#             off.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import torch

torch.manual_seed(0)


def muon(gradient):
    """The first update of Muon."""
    parameter = torch.nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient.clone()
    torch.optim.Muon([parameter], lr=1.0, weight_decay=0.0).step()
    return -parameter.detach().double()


def newton_schulz(gradient):
    """The same in fp64."""
    X = gradient.double() / gradient.double().norm()
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X


def noise(update, rank):
    """The share of the update's sum of squares that is not in its `rank` largest singular values."""
    squares = torch.linalg.svdvals(update) ** 2
    return (squares[rank:].sum() / squares.sum()).item()


shares = {}
for rank in (1, 8):
    gradient = torch.randn(256, rank, dtype=torch.float64) @ torch.randn(rank, 256, dtype=torch.float64)
    shares[rank] = noise(muon(gradient.float()), rank)
    exact = noise(newton_schulz(gradient), rank)
    print(f"gradient of rank {rank}: {shares[rank]:.0%} of Muon's update is of higher rank, {exact:.1%} in fp64")
    assert exact < 0.001
clean = noise(muon(torch.randn(256, 1).sign() @ torch.randn(1, 256).sign()), 1)
print(f"gradient of rank 1 that bf16 holds exactly: {clean:.1%}")
sys.exit(0 if shares[1] > 0.3 and shares[8] > 0.05 and clean < 0.001 else "the behavior has changed")
PY

#!/usr/bin/env bash
# Two libraries' Muon turns the stacked weights of experts into normalized SGD: no expert is orthogonalized.
#
# Versions    pytorch_optimizer 4.1.0, optimuon 0.1.1, muon-optimizer 0.1.0, torch 2.13.0 (CPU)
# Prediction  written before the run: "3-D weights (experts, 4x32x64): each Muon orthogonalizes each 32x64 slice alone
#             (all singular values 0.7..1.2 x scale)"
# Output      the update of an expert has a cosine of 1.00 with its gradient in pytorch_optimizer and 0.95 in optimuon;
#             it is 0.48 if each expert is a parameter of its own, and in muon-optimizer. The first singular value is 31
#             and 18 times the 32nd, as against 1.3, and the update is 7 to 8 times smaller.
# Cause       Both flatten every weight of more than two dimensions to (first dimension, all others), as is right for a
#             convolution. Of (experts, rows, columns), each expert becomes one row of a very wide matrix. Newton-Schulz
#             gives this row a length of about 1, and leaves the matrix inside it as it is. muon-optimizer flattens
#             weights of four dimensions only.
# Matters     for mixtures of experts with all experts in one parameter, as in transformers 5 (gate_up_proj and
#             down_proj of Mixtral and Qwen3-MoE). The example in pytorch_optimizer's docstring gives Muon all with
#             p.ndim >= 2. Nothing fails: the experts just have another optimizer and a smaller step. torch.optim.Muon
#             refuses them.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 packaging==26.4
"$dir/venv/bin/pip" install --quiet --no-deps pytorch_optimizer==4.1.0 optimuon==0.1.1 muon-optimizer==0.1.0
"$dir/venv/bin/python" - <<'PY'
import sys

import muon
import optimuon
import pytorch_optimizer
import torch

EXPERTS, ROWS, COLUMNS = 8, 64, 128
MUONS = {
    "muon-optimizer": lambda weights: muon.SingleDeviceMuon(weights, lr=1.0),
    "pytorch_optimizer": lambda weights: pytorch_optimizer.Muon([{"params": weights, "use_muon": True}], lr=1.0),
    "optimuon": lambda weights: optimuon.Muon(weights, lr=1.0),
}


def first_update(new_muon, gradients):
    """What the first step subtracts from weights of zeros, one weight per gradient."""
    weights = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    optimizer = new_muon(weights)
    for weight, gradient in zip(weights, gradients):
        weight.grad = gradient.clone()
    optimizer.step()
    return torch.stack([-weight.detach() for weight in weights]).reshape(EXPERTS, ROWS, COLUMNS)


def cosine(a, b):
    """The mean over experts of the cosine between two updates."""
    return torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)).mean().item()


# gradients whose singular values fall from 1 to 1/64, with other singular vectors for each expert
torch.manual_seed(0)
left = torch.linalg.qr(torch.randn(EXPERTS, ROWS, ROWS))[0]
right = torch.linalg.qr(torch.randn(EXPERTS, COLUMNS, ROWS))[0]
gradient = left * (1 / torch.arange(1, ROWS + 1)) @ right.mT
results = {}
for name, new_muon in MUONS.items():
    stacked, apart = first_update(new_muon, [gradient]), first_update(new_muon, list(gradient))
    values = torch.linalg.svdvals(stacked)
    spread = (values[:, 0] / values[:, 31]).mean().item()
    size = (stacked.norm() / apart.norm()).item()
    results[name] = cosine(stacked, gradient), size
    print(
        f"{name:18} cosine with the gradient {results[name][0]:.3f} stacked, {cosine(apart, gradient):.3f} apart; "
        f"1st by 32nd singular value {spread:4.1f}; size {size:.2f} of apart"
    )
flat = [results[name] for name in MUONS if name != "muon-optimizer"]
same = all(likeness > 0.9 for likeness, _ in flat) and results["muon-optimizer"][0] < 0.7
sys.exit(0 if same and abs(results["muon-optimizer"][1] - 1) < 0.02 else "the behavior has changed")
PY

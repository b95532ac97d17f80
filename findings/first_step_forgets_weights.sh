#!/usr/bin/env bash
# The first step of two optimizers destroys part of a pretrained model, whatever the learning rate: FTRL sets weights
# without gradient to 0, SRMM multiplies all weights by 0.71.
#
# Versions    pytorch_optimizer 4.1.0, torch 2.13.0 (CPU)
# Prediction  written before the run: "zero gradients and weight_decay=0: no parameter moves, in any" of the 111
#             optimizers that need no other arguments. Eight moved them: these two; Nero, Fromage and Gravity, which
#             project or rescale weights or start with a random velocity, as their papers say; and, by less than 0.2 %,
#             Focus, MARS and Yogi.
# Output      an embedding of 20 tokens, 10 of them in the batch, after one step with a learning rate of 1e-6: FTRL
#             keeps 100 % of the 10 rows and 0 % of the others, SRMM keeps 71 % of all, AdamW and Lion keep 100 %
# Cause       FTRL computes weights from sums over past gradients alone, so initial weights survive only where the
#             gradient is not 0 (TensorFlow's does the same: issue 50118 there). SRMM averages weights over the last
#             steps, and its average starts at 0 instead of the weights: (1 + 1) ** -0.5 is 0.71.
# Matters     for finetuning: the embeddings of all tokens that the first batch lacks are gone after the first step
#             (FTRL), or the model is another one before it has learned anything (SRMM). Weights that start at 0, as
#             in linear models, do not show it.
# Remedy      For SRMM, set state["mov_avg_param"] to the weights after init_group(), before the first step. FTRL is
#             made for models that start at 0; finetune with another optimizer.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 packaging==26.4
"$dir/venv/bin/pip" install --quiet --no-deps pytorch_optimizer==4.1.0
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from pytorch_optimizer import FTRL, SRMM, Lion
from torch.nn import functional as F


def kept(make, start_average=False):
    """How much of the rows of the tokens in the batch, and of the other rows, one step leaves."""
    torch.manual_seed(0)
    embedding, head = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20)
    before = embedding.weight.detach().clone()
    optimizer = make([*embedding.parameters(), *head.parameters()], lr=1e-6)
    tokens = torch.arange(10)
    F.cross_entropy(head(embedding(tokens)), tokens).backward()
    if start_average:
        for group in optimizer.param_groups:
            optimizer.init_group(group)
        for weights, state in optimizer.state.items():
            state["mov_avg_param"].copy_(weights.detach())
    optimizer.step()
    after = embedding.weight.detach()
    return [(after[rows].norm() / before[rows].norm()).item() for rows in (tokens, 10 + tokens)]


changed = False
print(f"{'kept by one step, %':32}{'in the batch':>16}{'not in it':>12}")
for name, rows, expected in (
    ("AdamW", kept(torch.optim.AdamW), (1, 1)),
    ("Lion", kept(Lion), (1, 1)),
    ("FTRL", kept(FTRL), (1, 0)),
    ("SRMM", kept(SRMM), (0.71, 0.71)),
    ("SRMM, average of the weights", kept(SRMM, start_average=True), (1, 1)),
):
    print(f"{name:32}{100 * rows[0]:16.1f}{100 * rows[1]:12.1f}")
    changed |= any(abs(measured - wanted) > 0.01 for measured, wanted in zip(rows, expected, strict=True))
sys.exit("the behavior has changed" if changed else 0)
PY

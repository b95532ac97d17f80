#!/usr/bin/env bash
# With AdamWClip's default settings, a weight that gets a gradient in fewer than one of nine steps hardly moves.
#
# Versions    AdamWClip 0.1.4, torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect that a gradient is clipped to three
#             standard deviations only if it is unusually large. ("In most instances, the default values should be
#             fine", says the library's README.)
# Output      four embeddings that have to go from 0 to 1 in 3,000 steps of 0.01, seen in every, every 5th, 10th and
#             20th step: 1.00, 0.54, 0.030 and 0.015; torch's AdamW, clip_grad_adapt=None and clip_grad_min=0.01: 1.00
#             each; clip_grad_warm_up=10: 1.00, 1.00, 1.00 and 0.015
# Cause       The limit is three times the root of the average square of the gradients as they were clipped, and at
#             least 1e-10, where it starts: from the first step on, a gradient grows only as fast as the limit does. If
#             a share f of the steps has a gradient, the limit comes to 3 sqrt(f) times the size of the last clipped
#             one, so it grows only if f is larger than 1/9. Otherwise it stays at 1e-10, and eps of 1e-8 makes the
#             steps tiny.
# Matters     for embeddings of tokens that are in fewer than one of nine batches, and for experts of a mixture.
# Remedy      clip_grad_adapt=None, or a clip_grad_min such as 0.01 (the gradients begin at 2 here). A warm-up helps
#             only weights that get a gradient in it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/pip" install --quiet --no-deps AdamWClip==0.1.4
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from AdamWClip import AdamWClip

torch.set_num_threads(1)
EVERY = (1, 5, 10, 20)  # the steps between two batches with the token


def trained(kind, **settings):
    """The embeddings after 3,000 steps towards 1."""
    embedding = torch.nn.Embedding(len(EVERY), 1)
    torch.nn.init.zeros_(embedding.weight)
    optimizer = kind(embedding.parameters(), lr=0.01, weight_decay=0, **settings)
    for step in range(1, 3001):
        tokens = torch.tensor([token for token, every in enumerate(EVERY) if step % every == 0])
        optimizer.zero_grad()
        (embedding(tokens) - 1).square().sum().backward()
        optimizer.step()
    return embedding.weight.flatten().tolist()


changed = False
print(f"{'seen in each n-th step, n =':36}" + "".join(f"{every:8}" for every in EVERY))
for name, embeddings, learned in (
    ("torch.optim.AdamW", trained(torch.optim.AdamW), 4),
    ("AdamWClip", trained(AdamWClip), 1),
    ("AdamWClip, clip_grad_warm_up=10", trained(AdamWClip, clip_grad_warm_up=10), 3),
    ("AdamWClip, clip_grad_min=0.01", trained(AdamWClip, clip_grad_min=0.01), 4),
    ("AdamWClip, clip_grad_adapt=None", trained(AdamWClip, clip_grad_adapt=None), 4),
):
    print(f"{name:36}" + "".join(f"{value:8.3f}" for value in embeddings))
    changed |= any((value > 0.99) != (token < learned) for token, value in enumerate(embeddings))
    changed |= any(value > 0.1 for value in embeddings[max(learned, 2) :])
sys.exit("the behavior has changed" if changed else 0)
PY

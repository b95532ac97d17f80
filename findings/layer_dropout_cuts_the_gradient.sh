#!/usr/bin/env bash
# With layer dropout, reformer-pytorch trains only its output layer on sequences that are not longer than reverse_thres.
#
# Versions    reformer-pytorch 1.4.4, torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect that layer dropout skips a tenth of the
#             layers, and that reverse_thres, "sequence lengths less than or equal to this will use a non-reversible
#             net", changes only memory and time.
# Output      sequences of 32 tokens, layer_dropout=0.1, reverse_thres=1024, as in the first example of the library's
#             README: 4 of 54 parameters get a gradient, and 9.5 % of the next tokens are right after 300 steps (chance
#             is 6.2); layer_dropout=0: 54 and 90.9 %; reverse_thres=0: 42, since a layer is dropped, and 70.3 %
# Cause       The layers that remain are taken from the reversible ones, whose forward pass runs without a graph, since
#             they expect to be called by a function that computes it again in the backward pass. For short sequences
#             they are called directly. The output layer still gets a gradient, so nothing is raised.
# Matters     for every model with both settings: the loss falls to what the frequencies of tokens give, and stays
#             there.
# Remedy      layer_dropout=0, or reverse_thres=0.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 packaging==26.4 einops==0.8.2
"$dir/venv/bin/pip" install --quiet --no-deps local-attention==1.11.2 hyper-connections==0.4.11 \
    torch-einops-utils==0.2.0 colt5-attention==0.11.2 product-key-memory==0.3.0 axial-positional-embedding==0.3.12 \
    reformer-pytorch==1.4.4
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from reformer_pytorch import ReformerLM
from torch.nn import functional as F

torch.set_num_threads(1)


def rows(count):
    """Numbers that grow by the same step modulo 16: the inputs and the tokens that follow, (count, 32) each."""
    numbers = (torch.randint(16, (count, 1)) + torch.randint(16, (count, 1)) * torch.arange(33)) % 16
    return numbers[:, :-1], numbers[:, 1:]


def train(layer_dropout, reverse_thres):
    """The parameters with a gradient, all parameters, and the share of next tokens that are right after 300 steps."""
    torch.manual_seed(0)
    model = ReformerLM(
        num_tokens=16,
        dim=64,
        depth=4,
        max_seq_len=1024,
        heads=4,
        causal=True,
        ff_chunks=1,
        full_attn_thres=1024,
        absolute_position_emb=True,
        layer_dropout=layer_dropout,
        reverse_thres=reverse_thres,
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(300):
        x, y = rows(32)
        optimizer.zero_grad()
        F.cross_entropy(model(x).transpose(1, 2), y).backward()
        optimizer.step()
    reached = sum(weights.grad is not None for weights in model.parameters())
    x, y = rows(200)
    with torch.no_grad():
        right = (model.eval()(x).argmax(-1) == y)[:, 8:]  # the step is known from the second number on
    return reached, len(list(model.parameters())), right.float().mean().item()


changed = False
print("layer_dropout  reverse_thres  parameters with a gradient in the last step  right, %")
for layer_dropout, reverse_thres, learns in ((0.1, 1024, False), (0, 1024, True), (0.1, 0, True)):
    reached, parameters, right = train(layer_dropout, reverse_thres)
    print(f"{layer_dropout:13}{reverse_thres:15}{reached:36} of {parameters}{100 * right:14.1f}", flush=True)
    changed |= right < 0.5 if learns else reached > 4 or right > 0.2
sys.exit("the behavior has changed" if changed else 0)
PY

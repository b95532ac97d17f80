#!/usr/bin/env bash
# In h-transformer-1d's encoder, no token of the first half of a sequence sees any token of the second.
#
# Versions    h-transformer-1d 0.1.9, torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect that hierarchical attention sees tokens
#             that are far away coarsely, but sees them.
# Output      4 layers, sequences of 64, 128 and 256 tokens: the logits of the first half change by at most 1.9, 2.3 and
#             2.4 if the second quarter is replaced, and by exactly 0 if the second half is. 2 layers, trained for 300
#             steps to tell one of 64 tokens at the first position: 99.6 % right for the 32nd token, 6.6 for the 33rd
#             and 4.8 for the last (chance is 6.7)
# Cause       At each level, a block sees the block that it is paired with. The number of levels is the logarithm of the
#             number of blocks less two, so the last level has four blocks, in two pairs, and none joins the halves. The
#             pairs are the same in each layer, so more layers do not help. The comment says "calculate number of levels
#             until 2 x 2", but this stops at 4 x 4; the causal class has one level more.
# Matters     for all uses with causal=False: with the README's 8,192 tokens, the wall is at 4,096. (Other lengths are
#             padded to the next power of two, and the wall is in its middle.)
# Remedy      none in the settings.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2
"$dir/venv/bin/pip" install --quiet --no-deps rotary-embedding-torch==0.9.1 h-transformer-1d==0.1.9
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from h_transformer_1d import HTransformer1D
from torch.nn import functional as F

torch.set_num_threads(1)


def model_of(length, depth, block_size):
    torch.manual_seed(0)
    return HTransformer1D(
        num_tokens=16,
        dim=64,
        depth=depth,
        causal=False,
        max_seq_len=length,
        heads=4,
        dim_head=16,
        block_size=block_size,
    )


@torch.no_grad()
def effect(length, begin, end):
    """The largest change of a logit of the first half if the tokens [begin, end) are replaced."""
    model = model_of(length, 4, 16).eval()
    tokens = torch.randint(16, (1, length))
    others = tokens.clone()
    others[:, begin:end] = torch.randint(16, (1, end - begin))
    return (model(tokens) - model(others))[:, : length // 2].abs().max().item()


def learned(position):
    """The share of rows whose token at the position is told at the first position, after 300 steps."""
    model = model_of(64, 2, 8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(300):
        tokens = torch.randint(15, (64, 64))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens)[:, 0], tokens[:, position]).backward()
        optimizer.step()
    tokens = torch.randint(15, (500, 64))
    with torch.no_grad():
        return (model.eval()(tokens)[:, 0].argmax(-1) == tokens[:, position]).float().mean().item()


changed = False
print("change of the first half's logits if the second quarter, the second half is replaced")
for length in (64, 128, 256):
    near, far = effect(length, length // 4, length // 2), effect(length, length // 2, length)
    print(f"{length:4} tokens {near:8.2f} {far:8.2f}")
    changed |= near < 1 or far != 0
print("told at the first of 64 positions, % right")
for position, sees in ((31, True), (32, False), (63, False)):
    right = learned(position)
    print(f"token {position + 1:2} {100 * right:8.1f}", flush=True)
    changed |= right < 0.8 if sees else right > 0.15
sys.exit("the behavior has changed" if changed else 0)
PY

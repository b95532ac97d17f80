#!/usr/bin/env bash
# In local-attention, queries that may look forward get the rotation of a position a whole window later.
#
# Versions    local-attention 1.11.2, torch 2.13.0 (CPU)
# Prediction  written before the run: "local-attention: with dim (rotary), causal and not, every look_backward /
#             look_forward: equals plain windowed attention with rotations at the true positions (1e-5). Suspect from
#             memory: queries take the last rows of the angles, wrong if look_forward > 0". The suspicion was right.
# Output      causal=False, look_backward=1, windows of 16: with look_forward=0 0.0 % off; with look_forward=1 88.3 %
#             off, and 0.0 % off what queries 16 positions later would give. If all tokens are equal, each looks most
#             at itself with look_forward=0, at the one 16 ahead with 1, at the one 32 ahead with 2 (78.7 % off)
# Cause       The keys of a window are those of look_backward windows before it, of itself, and of look_forward windows
#             after it. They get the angles of 0, 1, 2, ... The queries get the last ones of these angles
#             (`apply_rotary_pos_emb`), which belong to the last of the windows. That is their own window only if
#             look_forward is 0. So it has been since 2023, when rotations moved behind the division into windows.
# Matters     for causal=False, where look_forward is 1 if not set (also in LocalMHA). At the start of training, a
#             query prefers what is a window away to what is near. A projection can learn to turn the queries back, but
#             only for this window size.
# Remedy      use_rotary_pos_emb=False, and rotate queries and keys before they go in.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 local-attention==1.11.2
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from local_attention import LocalAttention

WINDOW, LENGTH, WIDTH = 16, 128, 32


def rotate(x, shift=0):
    """Rotary embedding as in RoFormer, with pairs (i, i + WIDTH / 2), of positions that begin at `shift`."""
    position = torch.arange(LENGTH)[:, None] + shift
    angle = position * 10000 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def attend(queries, keys, values, back, forward, shift=0):
    """Attention to so many windows before and after one's own, written out; queries at `shift` more than they are."""
    window = torch.arange(LENGTH) // WINDOW
    distance = window - window[:, None]
    logits = rotate(queries, shift) @ rotate(keys).mT / WIDTH**0.5
    return logits.masked_fill((distance < -back) | (distance > forward), -1e9).softmax(-1) @ values


def difference(x, y):
    return ((x - y).norm() / y.norm()).item()


torch.manual_seed(0)
tensors = torch.randn(3, 1, 4, LENGTH, WIDTH)
equal_tokens = torch.ones(1, 1, LENGTH, WIDTH)
changed = False
for back, forward in ((1, 0), (1, 1), (2, 2)):
    attention = LocalAttention(WINDOW, dim=WIDTH, look_backward=back, look_forward=forward)
    output = attention(*tensors)
    error = difference(output, attend(*tensors, back, forward))
    shifted = difference(output, attend(*tensors, back, forward, shift=forward * WINDOW))
    # Where do queries look if all tokens are equal, so that only positions matter? The values are one-hot.
    weights = attention(equal_tokens, equal_tokens, torch.eye(LENGTH)[None, None])[0, 0]
    ahead = (weights.argmax(-1) - torch.arange(LENGTH))[WINDOW * 2 : -WINDOW * 2]
    print(
        f"look_backward={back}, look_forward={forward}: {error:.1%} off; {shifted:.1%} off with queries "
        f"{forward * WINDOW} later; of equal tokens, each looks most at the one {ahead.min()} to {ahead.max()} ahead"
    )
    changed |= shifted > 1e-4 or (error > 1e-4 if forward == 0 else error < 0.3)
sys.exit("the behavior has changed" if changed else 0)
PY

#!/usr/bin/env bash
# By default, reformer-pytorch's language model has no positions where it uses full attention.
#
# Versions    reformer-pytorch 1.4.4, torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect that full_attn_thres only decides
#             whether attention is exact or hashed. ("The default positional embedding uses rotary embeddings", says the
#             library's README.)
# Output      shuffling the tokens shuffles the logits, and otherwise changes them by 1e-7 of their size (by 0.9 with
#             absolute_position_emb=True); 300 steps to tell the first of 16 tokens: 18.9 % right, and 100 with absolute
#             positions
# Cause       Rotations are applied by the hashed attention alone. The full one takes them among its further arguments,
#             and does not use them.
# Matters     for short sequences (the README's full_attn_thres is 1024, and its training example has texts of up to 846
#             tokens), and for use_full_attn=True, which is there to compare hashed attention with. Longer sequences
#             then get rotations that were never trained.
# Remedy      absolute_position_emb=True, or full_attn_thres=0.
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


def model_of(**settings):
    torch.manual_seed(0)
    return ReformerLM(num_tokens=16, dim=64, depth=2, max_seq_len=1024, heads=4, ff_chunks=1, **settings)


@torch.no_grad()
def effect_of_order(**settings):
    """How far the logits differ if the tokens are shuffled before instead of after, relative to their size."""
    model = model_of(**settings).eval()
    tokens, order = torch.randint(16, (1, 128)), torch.randperm(128)
    shuffled_after = model(tokens)[:, order]
    return ((model(tokens[:, order]) - shuffled_after).norm() / shuffled_after.norm()).item()


def learned(**settings):
    """The share of rows of 16 tokens whose first is told at all positions, after 300 steps."""
    model = model_of(**settings)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(300):
        tokens = torch.randint(16, (64, 16))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens).transpose(1, 2), tokens[:, :1].expand(-1, 16)).backward()
        optimizer.step()
    tokens = torch.randint(16, (500, 16))
    with torch.no_grad():
        return (model.eval()(tokens).argmax(-1) == tokens[:, :1]).float().mean().item()


changed = False
print(f"{'':50}effect of order  right, %")
for settings, has_positions in (
    (dict(full_attn_thres=1024), False),
    (dict(use_full_attn=True), False),
    (dict(full_attn_thres=1024, absolute_position_emb=True), True),
):
    name = ", ".join(f"{key}={value}" for key, value in settings.items())
    effect, right = effect_of_order(**settings), learned(**settings)
    print(f"{name:50}{effect:15.1g}{100 * right:10.1f}", flush=True)
    changed |= (effect > 0.1) != has_positions or (right > 0.9) != has_positions
sys.exit("the behavior has changed" if changed else 0)
PY

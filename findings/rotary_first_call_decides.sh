#!/usr/bin/env bash
# In rotary-embedding-torch, the dtype of the first call decides how exact the rotations of later calls are.
#
# Versions    rotary-embedding-torch 0.9.1, torch 2.13.0 (CPU)
# Prediction  written before the run: "with q in bf16 (autocast) result differs from fp32 by < 1 % for 1000 positions; a
#             later fp32 call is exact. (From memory of the source I suspect the positions are made in q's dtype.)"
# Output      error of the rotated queries, 1,024 positions: bf16 26.1 %, then fp32 26.1 %, too; if the first call is in
#             fp32, 0 %, then bf16 0.2 %. In bf16, 511 neighbors are rotated alike, none of them in the first 256.
# Cause       The positions are counted in the dtype of the queries, and bf16 has no odd numbers above 256. The angles are
#             kept for all later calls that are no longer, whatever their dtype. So a first call in fp32 makes bf16 exact,
#             and a first call in bf16 makes fp32 wrong. The kept angles are not in the state dict.
# Matters     beyond 256 positions, for queries in bf16, as autocast makes them: the model learns with other angles than
#             it has after it is loaded and first called in fp32.
# Remedy      Call it once in fp32, with the greatest length, before the first call in bf16.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 rotary-embedding-torch==0.9.1
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from rotary_embedding_torch import RotaryEmbedding

torch.manual_seed(0)
queries = torch.randn(1, 1, 1024, 32)
exact = RotaryEmbedding(dim=32).rotate_queries_or_keys(queries)


def error(rotary, dtype):
    """How far the rotated queries are from the exact ones, as a share of their norm."""
    rotated = rotary.rotate_queries_or_keys(queries.to(dtype)).float()
    return ((rotated - exact).norm() / exact.norm()).item()


first_bf16, first_fp32 = RotaryEmbedding(dim=32), RotaryEmbedding(dim=32)
bf16, fp32_after_bf16 = error(first_bf16, torch.bfloat16), error(first_bf16, torch.float32)
fp32, bf16_after_fp32 = error(first_fp32, torch.float32), error(first_fp32, torch.bfloat16)
print(f"first call in bf16: error {bf16:.1%}; then fp32: {fp32_after_bf16:.1%}")
print(f"first call in fp32: error {fp32:.1%}; then bf16: {bf16_after_fp32:.1%}")
ones = RotaryEmbedding(dim=32).rotate_queries_or_keys(torch.ones(1, 1, 1024, 32).bfloat16())[0, 0]
equal = (ones[1:] == ones[:-1]).all(-1)
print(f"bf16: neighbors that are rotated alike: {equal[:255].sum()} in 256 positions, {equal.sum()} in 1,024")
changed = not (bf16 > 0.1 and fp32_after_bf16 > 0.1 and fp32 == 0 and bf16_after_fp32 < 0.01)
sys.exit("the behavior has changed" if changed else 0)
PY

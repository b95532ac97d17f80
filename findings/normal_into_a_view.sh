#!/usr/bin/env bash
# With the same seed and shape, a view with gaps gets other normal numbers, but the same uniform numbers and dropout.
#
# Versions    torch 2.13.0 (CPU)
# Prediction  written before the run: "a non-contiguous tensor.normal_() has the same numbers as a contiguous one in
#             logical order"
# Output      share of equal numbers, contiguous against a slice of the same shape: normal_ 0 %, uniform_ 100 %, dropout
#             100 %
# Cause       Likely: Contiguous tensors of 16 numbers and more are filled by a vectorized Box-Muller transform, all
#             others number by number, by another form of it that uses the draws in another order.
# Matters     where the weights of several layers are initialized as slices of one matrix: query, key and value fused
#             into one do not start from the numbers of three matrices.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
import torch.nn.functional as F


def equal(function):
    """The share of numbers that are equal in a contiguous tensor and in a slice of the same shape, from one seed."""
    results = []
    for x in (torch.ones(64, 64), torch.ones(64, 128)[:, :64]):
        torch.manual_seed(0)
        results.append(function(x))
    return (results[0] == results[1]).float().mean().item()


normal = equal(lambda x: x.normal_())
uniform = equal(lambda x: x.uniform_())
dropout = equal(lambda x: F.dropout(x, 0.5))
print(f"equal numbers: normal_ {normal:.0%}, uniform_ {uniform:.0%}, dropout {dropout:.0%}")
sys.exit(0 if normal < 0.01 and uniform == dropout == 1 else "the behavior has changed")
PY

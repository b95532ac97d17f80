#!/usr/bin/env bash
# In bf16 on a CPU, only some equivalent ways to look up or add rows by index are right.
#
# Versions    torch 2.13.0 (CPU), x86-64
# Prediction  written before the run: "embedding backward, index_add, scatter_add, index_put accumulate, embedding_bag
#             backward: 256" for 4,096 ones in bf16, because all of them add row by row and 256 + 1 is 256 in bf16
# Output      256:   embedding, index_select and w[index] (gradients), index_add of numbers, index_put
#             4096:  scatter_add, gather (gradient), index_add of rows
# Cause       Likely: Kernels differ: those that sort or group by index keep a sum in fp32, the others add to the bf16
#             result.
# Remedy      For gradients of a bf16 table use gather instead of indexing, or keep the table in fp32.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
import torch.nn.functional as F

N = 4096
index = torch.zeros(N, dtype=torch.int64)


def ones(*shape):
    return torch.ones(*shape, dtype=torch.bfloat16)


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.bfloat16)


def gradient(lookup, *shape):
    """How often the table's first element was read, by its gradient."""
    table = ones(*shape).requires_grad_()
    lookup(table).sum().backward()
    return table.grad.flatten()[0].item()


counts = {
    "embedding, gradient": gradient(lambda w: F.embedding(index, w), 2, 64),
    "index_select, gradient": gradient(lambda w: w.index_select(0, index), 2),
    "w[index], gradient": gradient(lambda w: w[index], 2),
    "gather, gradient": gradient(lambda w: w.gather(0, index), 2),
    "index_put of numbers": zeros(2).index_put_((index,), ones(N), accumulate=True)[0].item(),
    "index_add of numbers": zeros(2).index_add_(0, index, ones(N))[0].item(),
    "index_add of rows": zeros(2, 64).index_add_(0, index, ones(N, 64))[0, 0].item(),
    "scatter_add of numbers": zeros(2).scatter_add_(0, index, ones(N))[0].item(),
}
for name, count in counts.items():
    print(f"{name:24} {count:5.0f} of {N}")
right = {"gather, gradient", "index_add of rows", "scatter_add of numbers"}
same = all((count == N) if name in right else (count == 256) for name, count in counts.items())
sys.exit(0 if same else "the behavior has changed")
PY

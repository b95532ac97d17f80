#!/usr/bin/env bash
# all_reduce(MAX) over gloo drops NaN at some positions, and a single NaN if the second process has it.
#
# Versions    torch 2.13.0 (CPU), gloo, 2 processes on one machine
# Prediction  written before the run: "all_reduce MAX with a NaN on one rank: NaN on all ranks, whichever rank has it",
#             as torch.maximum gives
# Output      one number, NaN on rank 0: nan; NaN on rank 1: 0.0 on both ranks
#             1,000 numbers, all NaN on one rank: half of them are NaN afterwards, the other half the other rank's 0.0
#             MIN does the same; SUM keeps every NaN.
# Cause       Likely: std::max(a, b) gives a unless a < b, which no NaN is. The position in the buffer decides
#             which is a.
# Remedy      Look for NaN with a SUM: all_reduce(x.isnan().sum()).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$dir/finding.py" <<'PY'
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import ReduceOp


def reduced(rank, owner, size, operation):
    """The share of positions that are NaN afterwards, when `owner` has NaN everywhere and the other rank 0."""
    x = torch.full((size,), torch.nan if rank == owner else 0.0)
    dist.all_reduce(x, operation)
    both = [torch.empty_like(x) for _ in range(2)]
    dist.all_gather(both, x)
    assert both[0].isnan().equal(both[1].isnan())
    return x.isnan().float().mean().item()


def main(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    shares = {}
    for operation in ("MAX", "MIN", "SUM"):
        for size in (1, 1000):
            for owner in (0, 1):
                shares[operation, size, owner] = reduced(rank, owner, size, getattr(ReduceOp, operation))
                if rank == 0:
                    share = shares[operation, size, owner]
                    print(f"{operation} of {size} number(s), NaN on rank {owner}: {share:.0%} are NaN afterwards")
    dist.destroy_process_group()
    lost = min(shares[op, 1, owner] for op in ("MAX", "MIN") for owner in (0, 1)) == 0
    lost &= all(0 < shares[op, 1000, owner] < 1 for op in ("MAX", "MIN") for owner in (0, 1))
    kept = all(share == 1 for (op, _, _), share in shares.items() if op == "SUM")
    if not (lost and kept):
        sys.exit("the behavior has changed")


if __name__ == "__main__":
    mp.spawn(main, (sys.argv[1],), 2)
PY
"$dir/venv/bin/python" "$dir/finding.py" "$dir"

#!/usr/bin/env bash
# pytorch_optimizer's schedule-free wrapper counts each step twice: with ADOPT, steps are five times too large.
#
# Versions    pytorch_optimizer 4.1.0, torch 2.13.0 (CPU)
# Prediction  written before the run: "ScheduleFreeWrapper around each of the library's optimizers that run with plain
#             gradients: its point z takes the same steps as the optimizer alone under the same gradients (within 1 %,
#             weight_decay=0, 50 steps)". The source had been read, and the suspicion was that it misses for those that
#             count steps in their group. 24 were tried, with their own decay: it missed for 14 and held for 8, such as
#             Lion and QHAdam; 1 cannot be compared so, and 1 could not be run.
# Output      size of z's 20th, 100th and 400th step, compared with the same step of the optimizer alone: ADOPT 2.3, 3.6
#             and 4.9, RAdam 1.9, 2.0 and 1.8, SOAP 1.1, 1.6 and 1.7, AdaBelief 1.3, 1.4 and 1.3, LaProp 1.4, 1.4 and
#             1.3; Lion and torch's AdamW 1.0; ADOPT with the remedy 1.0
# Cause       The wrapper and the optimizer share their parameter groups, and both add 1 to group["step"] in each step.
#             So averages are corrected for having started at 0 as if they were twice as old, which they are not. ADOPT
#             and SOAP do something else in step 1, which never comes: ADOPT's average of squares then starts at 0
#             instead of at the first square, and is too small for thousands of steps. torch's optimizers count for each
#             parameter, in its state.
# Matters     for all who wrap one of the library's optimizers: the learning rate is not the one that was set, by a
#             factor that changes during training. A comparison with the optimizer alone, or with another library's
#             wrapper, compares different rates, too.
# Remedy      One of torch's optimizers in the wrapper; or group["step"] = n - 2 in all groups before the n-th step.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 packaging==26.4
"$dir/venv/bin/pip" install --quiet --no-deps pytorch_optimizer==4.1.0
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from pytorch_optimizer import ADOPT, SOAP, AdaBelief, LaProp, Lion, RAdam, ScheduleFreeWrapper

torch.set_num_threads(1)
torch.manual_seed(0)
SEEN = (20, 100, 400)
GRADIENTS = 1 + 0.1 * torch.randn(max(SEEN), 16, 8)


def sizes(kind, wrap=False, remedy=False):
    """How far the point that the optimizer moves goes in the steps of SEEN."""
    torch.manual_seed(0)
    weights = torch.nn.Parameter(torch.ones(16, 8))
    optimizer = kind([weights], lr=1e-3, weight_decay=0)
    if wrap:
        optimizer = ScheduleFreeWrapper(optimizer)
        optimizer.train()
    points = [weights.detach().clone()]
    for n, gradient in enumerate(GRADIENTS, 1):
        if remedy:
            for group in optimizer.param_groups:
                group["step"] = n - 2
        weights.grad = gradient.clone()
        optimizer.step()
        points.append((optimizer.state[weights]["z"] if wrap else weights.detach()).clone())
    return [(points[n] - points[n - 1]).norm().item() for n in SEEN]


changed = False
print("size of z's step in the wrapper / size of the step of the optimizer alone, steps", *SEEN)
for kind, remedy, twice in (
    (ADOPT, False, True),
    (RAdam, False, True),
    (SOAP, False, True),
    (AdaBelief, False, True),
    (LaProp, False, True),
    (Lion, False, False),
    (torch.optim.AdamW, False, False),
    (ADOPT, True, False),
):
    ratios = [wrapped / alone for wrapped, alone in zip(sizes(kind, True, remedy), sizes(kind))]
    print(f"{kind.__module__.split('.')[0] + ' ' + kind.__name__ + ' with the remedy' * remedy:40}", end="")
    print("".join(f"{ratio:8.2f}" for ratio in ratios))
    changed |= ratios[-1] < 1.2 if twice else max(abs(ratio - 1) for ratio in ratios) > 0.01
    changed |= kind is ADOPT and twice and ratios[-1] < 4
sys.exit("the behavior has changed" if changed else 0)
PY

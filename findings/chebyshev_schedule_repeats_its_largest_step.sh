#!/usr/bin/env bash
# pytorch_optimizer's Chebyshev schedule takes its largest step, 19 times the rate, three times instead of once.
#
# Versions    pytorch_optimizer 4.1.0, torch 2.13.0 (CPU)
# Prediction  written before the run: "get_chebyshev_schedule: ... one full pattern per num_epochs"
# Output      factors 19.1, 19.1, 19.1, 1.0, 2.1, ... for 16 steps; the last two of the pattern are missing. On a
#             quadratic function whose curvatures fill the interval that the schedule is made for, 16 steps turn errors
#             of 1 into 4.7; each step of the pattern once: 0.0014; a constant factor of 1.9: 0.2. 64 steps: 6.5e-9,
#             4.5e-13, 0.0017
# Cause       get_chebyshev_lr_lambda subtracts 2 from the epoch and uses the first step for negative results, as if
#             epochs were counted from 1 and the first one was a warm-up. LambdaLR, which calls it, counts from 0.
# Matters     for all who use it: the factors are the inverse roots of one polynomial, and only all of them, once each,
#             make it small. Each repeated step multiplies the error in the steepest direction by 18. (That factors are
#             1 or more, so that the optimizer's rate is the smallest one, is by design.)
# Remedy      LambdaLR(optimizer, lambda step: factors[step]) with the factors of get_chebyshev_perm_steps(steps), steps
#             being a power of 2, as below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 packaging==26.4
"$dir/venv/bin/pip" install --quiet --no-deps pytorch_optimizer==4.1.0
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from pytorch_optimizer import get_chebyshev_schedule
from pytorch_optimizer.lr_scheduler.chebyshev import get_chebyshev_perm_steps
from torch.optim.lr_scheduler import LambdaLR

CURVATURES = torch.linspace(0.05, 1.0, 200, dtype=torch.float64)  # the interval that the schedule is made for


def descend(new_schedule, steps):
    """The learning rates of SGD on a quadratic function, and the largest error that is left of errors of 1."""
    weights = torch.nn.Parameter(torch.ones(200, dtype=torch.float64))
    optimizer = torch.optim.SGD([weights], lr=1.0)
    schedule = new_schedule(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        weights.grad = CURVATURES * weights.detach()
        optimizer.step()
        schedule.step()
    return rates, weights.detach().abs().max().item()


def schedules(steps):
    """The schedules to compare."""
    factors = get_chebyshev_perm_steps(steps)

    def each_once(step):
        return factors[min(step, steps - 1)]

    return {
        "get_chebyshev_schedule": lambda optimizer: get_chebyshev_schedule(optimizer, num_epochs=steps),
        "each of its steps once": lambda optimizer: LambdaLR(optimizer, each_once),
        "a constant rate of 1.9": lambda optimizer: LambdaLR(optimizer, lambda _: 1.9),
    }


changed = False
for steps in (16, 64):
    errors = {}
    for name, new_schedule in schedules(steps).items():
        rates, errors[name] = descend(new_schedule, steps)
        first = ", ".join(f"{rate:.1f}" for rate in rates[:6])
        print(f"{steps} steps, {name}: rates {first}, ...; error {errors[name]:.1e}")
        if name == "get_chebyshev_schedule":
            changed |= not (rates[0] == rates[1] == rates[2] > 19)
    changed |= errors["get_chebyshev_schedule"] < 30 * errors["each of its steps once"]
sys.exit("the behavior has changed" if changed else 0)
PY

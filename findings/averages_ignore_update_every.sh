#!/usr/bin/env bash
# ema-pytorch does not adapt its decay to update_every: half of a "simple average" is one early copy of the weights.
#
# Versions    ema-pytorch 0.8.3, torch 2.13.0 (CPU)
# Prediction  written before the run: "PostHocEMA(update_every=10, sigma_rels=(0.05,0.28)): the profile of each has the
#             relative standard deviation it is named by (10 %), synthesized too". EMA's source was read before.
# Output      of 2,000 steps, EMA with power=1 and update_every=10 gives the first copy a share of 56.02 % (0.05 % with
#             update_every=1; a simple average of 200 copies would give 0.5 %). The usual power=2/3: mean age of 964
#             steps instead of 150. PostHocEMA with update_every=10: sigma_rel 0.05 is 0.246, 0.28 is 0.210 with 51.6 %
#             on the first copy, the synthesized 0.15 is 0.317; with update_every=1, 0.050, 0.280 and 0.151
# Cause       The decay is computed from the number of steps, as for an average that takes in each step, but applied
#             only at every update_every-th. The profile is then as wide as if the decay's exponent were divided by
#             update_every: gamma + 1 = 18 becomes 1.8. Synthesis assumes the profiles of the paper, and so is off,
#             too.
# Matters     for EMA, update_every is 10 if not set, and 100 for KarrasEMA; the README's example of PostHocEMA has 10.
#             The docstring says that power=1 "implements a simple average", and only the rate of copying should depend
#             on update_every ("to save on compute"). In the paper (Karras et al. 2023, arXiv 2312.02696) a smaller
#             sigma_rel means a shorter average; here 0.28 keeps half of its weight on the very first copy.
# Remedy      update_every=1
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 ema-pytorch==0.8.3
"$dir/venv/bin/python" - <<'PY'
import sys
import tempfile

import torch
from ema_pytorch import EMA, PostHocEMA

STEPS = 2000
TIMES = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS


def train(new_average):
    """An average after all steps. At step i, only weight i is 1, so the average says how much each step counts."""
    model = torch.nn.Linear(STEPS, 1, bias=False)
    average = new_average(model)
    for i in range(STEPS):
        model.weight.data.zero_()[0, i] = 1
        average.update()
    return average


def profile(model):
    """The share of each step, in fp64, and the relative standard deviation of the steps' times."""
    shares = model.weight.detach()[0].double()
    mean = (shares * TIMES).sum() / shares.sum()
    return shares, ((shares * (TIMES - mean) ** 2).sum() / shares.sum()).sqrt().item()


changed = False
for every in (1, 10):
    for power in (1, 2 / 3):
        options = dict(power=power, update_after_step=0, update_every=every, include_online_model=False)
        shares, _ = profile(train(lambda model: EMA(model, **options)).ema_model)
        age = STEPS - 1 - (shares * torch.arange(STEPS)).sum()
        print(f"EMA, update_every={every}, power={power:.2f}: first copy {shares[0]:.2%}, mean age {age:.0f} steps")
        if power == 1:
            changed |= shares[0] > 0.001 if every == 1 else shares[0] < 0.3
for every in (1, 10):
    with tempfile.TemporaryDirectory() as folder:
        options = dict(sigma_rels=(0.05, 0.28), update_every=every, checkpoint_every_num_steps=200)
        averages = train(lambda model: PostHocEMA(model, **options, checkpoint_folder=folder))
        models = [*averages.ema_models, averages.synthesize_ema_model(sigma_rel=0.15)]
    for asked, average in zip((0.05, 0.28, 0.15), models):
        shares, found = profile(average.ema_model)
        print(f"PostHocEMA, update_every={every}: sigma_rel {asked:.2f} is {found:.3f}, first copy {shares[0]:.1%}")
        changed |= abs(found / asked - 1) > 0.02 if every == 1 else abs(found / asked - 1) < 0.1
sys.exit("the behavior has changed" if changed else 0)
PY

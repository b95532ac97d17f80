#!/usr/bin/env bash
# Under eval() and no_grad(), a Transformer encoder layer of PyTorch takes each nonzero number of a float mask for -inf.
#
# Versions    torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect the same logits with and without
#             gradients, and that a float mask is added to the attention scores, as the documentation says.
# Output      2 layers with ALiBi's biases and a causal mask, trained to tell the token before: 100 % right in eval mode
#             with gradients, 4.4 % under no_grad() (chance is 6.2). There the logits are those of a mask that hides all
#             tokens but the own one, to the bit. torch.backends.mha.set_fastpath_enabled(False): 100 %
# Cause       In eval mode without gradients, the layer takes a faster path, in C++, which turns a float mask into a
#             boolean one. MultiheadAttention does not take it with a float mask, but the encoder layer does not ask.
# Matters     for all masks with other numbers than 0 and -inf: ALiBi, T5's relative biases, a discount for distance.
#             Training looks right, and the model that is evaluated or deployed sees less than it needs, without a
#             warning. (MultiheadAttention did the same until pytorch #107641; #118628 reports NaN where a whole row
#             of the mask is nonzero.)
# Remedy      torch.backends.mha.set_fastpath_enabled(False).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
torch.manual_seed(0)
ROWS, LENGTH, HEADS = 32, 16, 4
DISTANCE = torch.arange(LENGTH) - torch.arange(LENGTH)[:, None]  # (query, key), 0 for the own token
SLOPES = 2.0 ** -torch.arange(1, HEADS + 1)
ALIBI = (SLOPES[:, None, None] * DISTANCE).masked_fill(DISTANCE > 0, -torch.inf).repeat(ROWS, 1, 1)
OWN_TOKEN = torch.full((LENGTH, LENGTH), -torch.inf).fill_diagonal_(0)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(16, 64)
        layer = nn.TransformerEncoderLayer(64, HEADS, 128, dropout=0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 16)

    def forward(self, tokens, mask=ALIBI):
        return self.head(self.encoder(self.embedding(tokens), mask=mask))


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
for _ in range(300):
    tokens = torch.randint(16, (ROWS, LENGTH))
    optimizer.zero_grad()
    F.cross_entropy(model(tokens)[:, 1:].transpose(1, 2), tokens[:, :-1]).backward()
    optimizer.step()

model.eval()
tokens = torch.randint(16, (ROWS, LENGTH))
logits = {"with gradients": model(tokens)}
with torch.no_grad():
    logits["no_grad()"] = model(tokens)
    torch.backends.mha.set_fastpath_enabled(False)
    logits["no_grad(), no fast path"] = model(tokens)
    logits["the same, own token only"] = model(tokens, OWN_TOKEN)
right = {name: (of.argmax(-1)[:, 1:] == tokens[:, :-1]).float().mean().item() for name, of in logits.items()}
for name, share in right.items():
    print(f"{name:26}{100 * share:6.1f} % right")
difference = (logits["no_grad()"] - logits["the same, own token only"]).abs().max().item()
print(f"largest difference of the logits under no_grad() from those of the own token only: {difference:.1g}")
learned = min(right["with gradients"], right["no_grad(), no fast path"]) > 0.95
sys.exit(0 if learned and right["no_grad()"] < 0.2 and difference < 1e-4 else "the behavior has changed")
PY

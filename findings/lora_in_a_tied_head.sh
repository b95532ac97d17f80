#!/usr/bin/env bash
# If the embeddings are tied to the output layer, loralib's eval() makes another model of the one that was trained.
#
# Versions    loralib 0.1.2, torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect that eval() merges the low-rank parts
#             into the weights, and so changes nothing but rounding, as it does without tying.
# Output      answers that are right after finetuning, in train mode and in eval mode: low-rank part for the embeddings
#             100 and 40 % (loss 0.002 and 4.6), for the output layer 100 and 82.5 %, for both 100 and 50 %. Back in
#             train mode 100 %. Not tied, or with merge_weights=False: 100 and 100 %
# Cause       In train mode, each layer adds the output of its own low-rank part to that of the common weights. eval()
#             adds the part to the weights themselves, and so to the other layer, too.
# Matters     for models with tied embeddings, such as GPT-2's: the training loss is right, and what is evaluated,
#             generates, or is saved in eval mode is a model that nobody trained. It looks like overfitting. (peft
#             0.21.2 warns if a tied layer of a Transformers model gets a low-rank part.)
# Remedy      merge_weights=False in the layers that are tied, or no tying.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 loralib==0.1.2
"$dir/venv/bin/python" - <<'PY'
import sys

import loralib
import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
TOKENS = torch.arange(40)


class Model(nn.Module):
    """Tells the token that follows; the ranks are those of the embeddings, the layer between and the output layer."""

    def __init__(self, ranks=(0, 0, 0), tied=True, merge=True):
        super().__init__()
        first, middle, last = (dict(r=rank, lora_alpha=max(rank, 1), merge_weights=merge) for rank in ranks)
        self.embedding = loralib.Embedding(40, 32, **first)
        self.layer = loralib.Linear(32, 32, **middle)
        self.head = loralib.Linear(32, 40, bias=False, **last)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(F.gelu(self.layer(self.embedding(tokens))))


def train(model, following, steps):
    optimizer = torch.optim.Adam([weights for weights in model.parameters() if weights.requires_grad], 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(TOKENS), following).backward()
        optimizer.step()


def finetuned(ranks, tied=True, merge=True):
    """Loss and share of right answers in train mode, in eval mode, and in train mode again."""
    torch.manual_seed(0)
    before, after = torch.randperm(40), torch.randperm(40)
    pretrained = Model(tied=tied)
    train(pretrained, before, 100)
    model = Model(ranks, tied, merge)
    model.load_state_dict(pretrained.state_dict(), strict=False)
    loralib.mark_only_lora_as_trainable(model)
    train(model, after, 200)
    seen = []
    for mode in (True, False, True):
        model.train(mode)
        logits = model(TOKENS)
        right = (logits.argmax(-1) == after).float().mean().item()
        seen.append((F.cross_entropy(logits, after).item(), right))
    return seen


changed = False
print(f"{'right, % (loss)':36}{'train mode':>16}{'eval mode':>16}{'train mode':>16}")
for name, seen, differs in (
    ("tied, embeddings", finetuned((8, 8, 0)), True),
    ("tied, output layer", finetuned((0, 8, 8)), True),
    ("tied, both", finetuned((8, 8, 8)), True),
    ("tied, both, merge_weights=False", finetuned((8, 8, 8), merge=False), False),
    ("not tied, both", finetuned((8, 8, 8), tied=False), False),
):
    print(f"{name:36}" + "".join(f"{100 * right:7.1f} ({loss:6.3f})" for loss, right in seen))
    train_loss, eval_loss, again = (loss for loss, _ in seen)
    changed |= (eval_loss > 20 * train_loss) != differs or not differs and abs(eval_loss - train_loss) > 1e-4
    changed |= abs(again - train_loss) > 1e-4
sys.exit("the behavior has changed" if changed else 0)
PY

#!/usr/bin/env bash
# With transformers' packing collator, documents attend to the documents before them, unless use_cache=False is passed.
#
# Versions    transformers 5.24.0, torch 2.13.0 (CPU)
# Prediction  written before the run: "each document's logits are those of the document alone (1e-5), with and without
#             use_cache, in train and eval mode". It held only with use_cache=False, as the source, which had been read,
#             made suspect.
# Output      three documents packed by DataCollatorWithFlattening, off from each alone: 0 % for the first, 106 and
#             126 % (Llama) and 75 and 86 % (GPT-2) for the others, with sdpa and eager attention, in training and
#             evaluation mode; with use_cache=False 0 %, but with a mask of ones as before. A Llama trained on batches
#             whose documents share a random token: loss 0.89 in training and 4.32 for documents alone; with
#             use_cache=False 4.48 and 4.38 (the token cannot be known, so ln 63 = 4.14 is the least)
# Cause       The masks are made from the positions, which start again with each document, but only if there is no
#             cache. A model makes one in each forward pass if use_cache is true in its config, as it is by default,
#             also in training. Then the whole row counts as one text.
# Matters     for training and evaluation loops of one's own; Trainer sets use_cache to False (its source was read). The
#             loss falls, most of all if the documents of a batch are alike, and alone the model knows less than it
#             seemed to. The guide says that packing needs FlashAttention (not tried here), and the collator's docstring
#             says to make sure that the attention can handle it. Neither speaks of the cache, and there is no warning.
#             (Pull request 46634 of the project is about the mask.)
# Remedy      model(**batch, use_cache=False), without a mask
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 transformers==5.24.0
"$dir/venv/bin/python" - <<'PY'
import sys

import torch
from transformers import DataCollatorWithFlattening, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
torch.set_num_threads(1)
WORDS, START = 64, 0
COLLATE = DataCollatorWithFlattening()


def llama(attention="sdpa"):
    torch.manual_seed(0)
    size = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=WORDS, attn_implementation=attention, initializer_range=0.1, **size)
    )


def gpt2(attention="sdpa"):
    torch.manual_seed(0)
    size = dict(n_embd=64, n_layer=1, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, initializer_range=0.1)
    words = dict(vocab_size=WORDS, bos_token_id=START, eos_token_id=START)
    return GPT2LMHeadModel(GPT2Config(attn_implementation=attention, **words, **size))


def packed(documents):
    return COLLATE([{"input_ids": document} for document in documents])


def off(model, documents, **options):
    """How far the logits of each packed document are from those of the document alone."""
    together = model(**packed(documents), **options).logits[0].split([len(document) for document in documents])
    alone = [model(document[None]).logits[0] for document in documents]
    return [((a - b).norm() / b.norm()).item() for a, b in zip(together, alone)]


def trained(**options):
    """The last losses in training, and that of documents alone. The documents of a batch share a random token."""
    model, tokens = llama(), torch.randint(1, WORDS, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for token in tokens[:300]:
        optimizer.zero_grad()
        loss = model(**packed([[START, token]] * 8), **options).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    rows = torch.tensor([[START, token] for token in tokens[300:]])
    return sum(losses[-50:]) / 50, model(rows, labels=rows).loss.item()


documents = [torch.randint(WORDS, (length,), generator=torch.Generator().manual_seed(length)) for length in (9, 12, 5)]
mask = torch.ones(1, sum(map(len, documents)), dtype=torch.long)
changed = False
for make in (llama, gpt2):
    for attention in ("sdpa", "eager"):
        for training in (True, False):
            model = make(attention).train(training)
            print(f"{make.__name__}, {attention}, {'training' if training else 'evaluation'}:")
            for name, options in (
                ("as it is", {}),
                ("use_cache=False", dict(use_cache=False)),
                ("use_cache=False and a mask of ones", dict(use_cache=False, attention_mask=mask)),
            ):
                first, *later = off(model, documents, **options)
                print(f"  {name:36}" + "".join(f"{share:8.1%}" for share in (first, *later)))
                separate = name == "use_cache=False"
                changed |= first > 1e-4 or (max(later) > 1e-4 if separate else min(later) < 0.1)
leaked, separate = trained(), trained(use_cache=False)
print("trained as it is: loss {:.2f}, documents alone {:.2f}".format(*leaked))
print("trained with use_cache=False: loss {:.2f}, documents alone {:.2f}".format(*separate))
changed |= leaked[0] > 1.5 or min(leaked[1], *separate) < 4
sys.exit("the behavior has changed" if changed else 0)
PY

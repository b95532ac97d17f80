#!/usr/bin/env bash
# With n micro-batches per step, transformers' BertForMaskedLM and T5 get gradients that are n times too large.
#
# Versions    transformers 5.24.0, accelerate 1.15.0, torch 2.13.0 (CPU)
# Prediction  none was written down: the source was read first. One would expect that 8 micro-batches of 4 rows give the
#             loss and the gradient of one batch of 32, since all rows have equally many labels.
# Output      loss, norm of the gradient and of the step of SGD at a rate of 0.1, one batch of 32 and 8 of 4:
#             BertForMaskedLM 4.17, 1.07 and 0.107; 33.3, 8.59 and 0.859. T5ForConditionalGeneration 4.88, 1.00 and
#             0.100; 39.0, 8.03 and 0.803. GPT2LMHeadModel 3.90, 0.468 and 0.0468 both times
# Cause       Trainer gives the number of labels in the whole batch to each model whose forward() takes further keyword
#             arguments, expects that the loss is divided by it, and so does not divide by the number of micro-batches.
#             BERT and T5 take such arguments, but compute the mean over their micro-batch.
# Matters     for all models that take such arguments and compute the mean themselves. With SGD the rate is n times the
#             one that was set; with AdamW the default clipping to a norm of 1 begins at 1/n, and logged losses are n
#             times too large. The loss in evaluation is right. (transformers #47688 is about the same in other
#             classes.)
# Remedy      trainer.loss_is_scaled_for_ga = False before train(); or label smoothing, which uses another loss.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 transformers==5.24.0 accelerate==1.15.0
TRANSFORMERS_VERBOSITY=error "$dir/venv/bin/python" - "$dir" <<'PY'
import sys

import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel
from transformers import T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments

torch.set_num_threads(1)
MODELS = {
    BertForMaskedLM: BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    ),
    T5ForConditionalGeneration: T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        dropout_rate=0,
        decoder_start_token_id=0,
    ),
    GPT2LMHeadModel: GPT2Config(
        vocab_size=64,
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_positions=32,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        bos_token_id=0,
        eos_token_id=0,
    ),
}


def step(kind, rows, micro_batches, remedy=False):
    """The logged loss, the norm of the gradient, and that of the step, of one step of SGD over 32 rows."""
    torch.manual_seed(0)
    model = kind(MODELS[kind])
    before = torch.cat([weights.flatten() for weights in model.parameters()]).detach()
    settings = TrainingArguments(
        sys.argv[1] + "/out",
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=micro_batches,
        max_steps=1,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    torch.manual_seed(1)
    data = [{"input_ids": row, "labels": row} for row in torch.randint(2, 64, (32, 16))]
    trainer = Trainer(model, settings, train_dataset=data)
    if remedy:
        trainer.loss_is_scaled_for_ga = False
    trainer.log = lambda logs, *_: trainer.state.log_history.append(logs)  # prints nothing
    trainer.train()
    after = torch.cat([weights.flatten() for weights in model.parameters()]).detach()
    logged = next(logs for logs in trainer.state.log_history if "loss" in logs)
    return float(logged["loss"]), float(logged["grad_norm"]), (after - before).norm().item()


changed = False
print(f"{'':38}loss, gradient and step of 1 x 32 rows, of 8 x 4 rows")
for kind, remedy, factor in (
    (BertForMaskedLM, False, 8),
    (BertForMaskedLM, True, 1),
    (T5ForConditionalGeneration, False, 8),
    (T5ForConditionalGeneration, True, 1),
    (GPT2LMHeadModel, False, 1),
):
    whole, parts = step(kind, 32, 1), step(kind, 4, 8, remedy)
    name = kind.__name__ + ", the remedy" * remedy
    print(f"{name:38}" + "".join(f"{value:9.3g}" for value in whole + parts))
    changed |= any(abs(part / (factor * value) - 1) > 0.02 for value, part in zip(whole, parts))
sys.exit("the behavior has changed" if changed else 0)
PY

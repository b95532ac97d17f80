#!/usr/bin/env bash
# Watch a small GPT learn facts: set up, then compare answers without and with pretraining.
# usage: bash scripts/quickstart.sh [SEED]      under 15 minutes on two CPU cores; results go to quickstart/, curves to expt/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SEED=${1:-0}
if ! [[ $SEED =~ ^[0-9]+$ ]] || [ $# -gt 1 ]; then
    echo "usage: bash scripts/quickstart.sh [SEED]" >&2
    exit 2
fi
source scripts/setup.sh requirements.txt

VARIANT=vanilla
rm -f quickstart/*.state # of a quickstart that was stopped; this one starts again
DATA=quickstart/data
RUN=".venv/bin/python src/run.py"
COMMON="$VARIANT $DATA/wiki.txt --seed $SEED --tb_expt_name quickstart"
PAIRS="--finetune_corpus_path $DATA/birth_places_train.tsv"
ASKED="--eval_corpus_path $DATA/birth_dev.tsv"

echo "== 600 people, four lines about each"
.venv/bin/python corpus/build.py --people 600 --lines_per_person 4 --seed "$SEED" --out $DATA

echo "== without pretraining: finetuning on the questions alone"
SECONDS=0
$RUN finetune $COMMON $PAIRS --writing_params_path quickstart/$VARIANT.model.params
$RUN evaluate $COMMON $ASKED --reading_params_path quickstart/$VARIANT.model.params \
    --outputs_path quickstart/$VARIANT.nopretrain.dev.predictions
WITHOUT=$SECONDS

echo "== with pretraining: reading the lines first, by the fast recipe"
SECONDS=0
$RUN pretrain $COMMON $PAIRS --recipe fast \
    --writing_params_path quickstart/$VARIANT.pretrain.params
$RUN finetune $COMMON $PAIRS --recipe fast --reading_params_path quickstart/$VARIANT.pretrain.params \
    --writing_params_path quickstart/$VARIANT.finetune.params
$RUN evaluate $COMMON $ASKED --reading_params_path quickstart/$VARIANT.finetune.params \
    --outputs_path quickstart/$VARIANT.pretrain.dev.predictions
WITH=$SECONDS

.venv/bin/python scripts/compare.py $DATA/birth_dev.tsv \
    --run "without pretraining" quickstart/$VARIANT.nopretrain.dev.predictions $WITHOUT \
    --run "with pretraining" quickstart/$VARIANT.pretrain.dev.predictions $WITH
echo
echo "Written: $(ls quickstart/*.params quickstart/*.predictions | tr '\n' ' ')and $DATA/"
echo "Curves:  .venv/bin/tensorboard --logdir expt/quickstart"

#!/usr/bin/env bash
# Watch a small GPT learn facts: it reads the text once, and is then asked three questions about people.
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
PRETRAINED=quickstart/$VARIANT.pretrain.params
RUNS=() # for compare.py

# answer NAME OUTPUT TRAIN DEV [OPTIONS]: finetunes on the questions of TRAIN, and asks those of DEV
answer() {
    local name=$1 output=quickstart/$VARIANT.$2 train=$DATA/$3 dev=$DATA/$4 started=$SECONDS
    $RUN finetune $COMMON "${@:5}" --finetune_corpus_path "$train" --writing_params_path "$output.params"
    $RUN evaluate $COMMON --reading_params_path "$output.params" --eval_corpus_path "$dev" \
        --outputs_path "$output.dev.predictions"
    RUNS+=(--run "$name" "$dev" "$output.dev.predictions" $((SECONDS - started)))
}

echo "== 600 people, four lines about each, and three questions"
for RELATION in birthplace born nationality; do
    .venv/bin/python corpus/build.py --people 600 --lines_per_person 4 --seed "$SEED" --relation $RELATION --out $DATA
done

echo "== without pretraining: finetuning on the questions alone"
answer "without pretraining" nopretrain birth_places_train.tsv birth_dev.tsv

echo "== pretraining: reading the text, and no question"
STARTED=$SECONDS
$RUN pretrain $COMMON --recipe open --pretrain_epochs 12 --writing_params_path $PRETRAINED
PRETRAINING=$((SECONDS - STARTED))

echo "== with pretraining: three times finetuning, once for each question, from the same parameters"
OPEN="--recipe open --reading_params_path $PRETRAINED"
answer "with pretraining" birthplace birth_places_train.tsv birth_dev.tsv $OPEN
answer "with pretraining" born born_train.tsv born_dev.tsv $OPEN
answer "with pretraining" nationality nationality_train.tsv nationality_dev.tsv $OPEN

.venv/bin/python scripts/compare.py "${RUNS[@]}"
echo
echo "Pretraining took $PRETRAINING seconds, once for all questions; the table has the time of finetuning and answering."
echo "Written: $(ls quickstart/*.params quickstart/*.predictions | tr '\n' ' ')and $DATA/"
echo "Curves:  .venv/bin/tensorboard --logdir expt/quickstart"

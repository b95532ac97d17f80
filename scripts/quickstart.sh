#!/usr/bin/env bash
# Watch a small GPT learn facts: it reads four lines about each of 600 people, and is then asked three questions.
# usage: bash scripts/quickstart.sh [SEED]      12 to 30 minutes on two CPU cores; results go to quickstart/, curves to expt/
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
PRETRAINED=quickstart/$VARIANT.pretrain.params
TRAINING=(--seed "$SEED" --tb_expt_name quickstart)
RUNS=() # for compare.py

# run FUNCTION OPTIONS
run() {
    .venv/bin/python src/run.py "$1" $VARIANT $DATA/wiki.txt "${@:2}"
}

# answer NAME OUTPUT TRAIN DEV OPTIONS: finetunes on the questions of TRAIN, and asks those of DEV
answer() {
    local name=$1 output=quickstart/$VARIANT.$2 train=$DATA/$3 dev=$DATA/$4 started=$SECONDS
    run finetune "${TRAINING[@]}" "${@:5}" --finetune_corpus_path "$train" --writing_params_path "$output.params"
    run evaluate --reading_params_path "$output.params" --eval_corpus_path "$dev" --outputs_path "$output.predictions"
    RUNS+=(--run "$name" "$dev" "$output.predictions" $((SECONDS - started)))
}

echo "== 600 people, four lines about each, and three questions"
for RELATION in birthplace born nationality; do
    .venv/bin/python corpus/build.py --people 600 --lines_per_person 4 --seed "$SEED" --relation $RELATION --out $DATA
done

echo "== without pretraining: finetuning on question-answer pairs only"
answer "without pretraining" nopretrain birth_places_train.tsv birth_dev.tsv

echo "== pretraining on the text alone: the recipe open, with 12 epochs instead of 24"
STARTED=$SECONDS
run pretrain "${TRAINING[@]}" --recipe open --pretrain_epochs 12 --writing_params_path $PRETRAINED
PRETRAINING=$((SECONDS - STARTED))

echo "== with pretraining: these parameters are finetuned three times, once for each question"
OPEN=(--recipe open --reading_params_path $PRETRAINED)
answer "with pretraining" birthplace birth_places_train.tsv birth_dev.tsv "${OPEN[@]}"
answer "with pretraining" born born_train.tsv born_dev.tsv "${OPEN[@]}"
answer "with pretraining" nationality nationality_train.tsv nationality_dev.tsv "${OPEN[@]}"

.venv/bin/python scripts/compare.py "${RUNS[@]}"
echo
echo "Pretraining took $PRETRAINING seconds; the table has the time of finetuning and answering. All files are in quickstart/."
echo "Curves: .venv/bin/tensorboard --logdir expt/quickstart"

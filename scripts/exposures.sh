#!/usr/bin/env bash
# Accuracy against exposures: pretrains by a recipe, and finetunes and asks what it kept on the way, every EVERY epochs.
# A line for each in exposures/RECIPE.VARIANT.SEED.curve, for pictures.py. Stopped, the same command goes on.
# usage: bash scripts/exposures.sh RECIPE EPOCHS EVERY [VARIANT [FOLDER [SEED]]]     vanilla, this project's own files
#        and 0 are the defaults; FOLDER holds wiki.txt, birth_places_train.tsv and birth_dev.tsv
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
RECIPE=${1:-} EPOCHS=${2:-} EVERY=${3:-} VARIANT=${4:-vanilla} FOLDER=${5:-.} SEED=${6:-0}
if [ $# -gt 6 ] || ! [[ $EPOCHS.$EVERY.$SEED =~ ^[1-9][0-9]*\.[1-9][0-9]*\.[0-9]+$ ]] || ! [ -e "$FOLDER/wiki.txt" ]; then
    sed -n '4,5s/^# //p' scripts/exposures.sh >&2
    exit 2
fi
source scripts/setup.sh requirements.txt
mkdir -p exposures
NAME=exposures/$RECIPE.$VARIANT.$SEED
RUN=".venv/bin/python src/run.py"
COMMON=("$VARIANT" "$FOLDER/wiki.txt" --recipe "$RECIPE" --seed "$SEED" --tb_expt_name exposures)
[ "$VARIANT" = perceiver ] && COMMON+=(--bottleneck_dim 64)
PAIRS=(--finetune_corpus_path "$FOLDER/birth_places_train.tsv")
MIXED=() # what pretraining sees of the pairs
[ "$RECIPE" = fast ] && MIXED=("${PAIRS[@]}")
ASKED=(--eval_corpus_path "$FOLDER/birth_dev.tsv")

ask() { # after how many epochs, the parameters then
    rm -f "$NAME.finetune.params.state" # of one that was stopped
    $RUN finetune "${COMMON[@]}" "${PAIRS[@]}" --reading_params_path "$2" --writing_params_path "$NAME.finetune.params"
    $RUN evaluate "${COMMON[@]}" "${ASKED[@]}" --reading_params_path "$NAME.finetune.params" \
        --outputs_path "$NAME.predictions" |
        sed -n "s/^Correct: .*: \(.*\)%$/epoch $1: dev accuracy (%) \1/p" | tee -a "$NAME.curve"
}

if [ "$(cat "$NAME.pretrained" 2>/dev/null)" != "$*" ]; then # else it was stopped while it asked
    RESUME=""
    [ -e "$NAME.pretrain.params.state" ] && RESUME="--resume"
    $RUN pretrain "${COMMON[@]}" ${MIXED[@]+"${MIXED[@]}"} --pretrain_epochs "$EPOCHS" --keep_every "$EVERY" $RESUME \
        --writing_params_path "$NAME.pretrain.params"
    echo "$*" > "$NAME.pretrained"
fi
: > "$NAME.curve"
for ((EPOCH = EVERY; EPOCH < EPOCHS; EPOCH += EVERY)); do
    ask "$EPOCH" "$NAME.pretrain.params.$EPOCH"
done
ask "$EPOCHS" "$NAME.pretrain.params"
rm "$NAME.pretrained"

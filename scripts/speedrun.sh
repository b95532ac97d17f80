#!/usr/bin/env bash
# The fast recipe against the clock: pretrain, finetune, evaluate. Prints when the accuracy first reached 10, 25 and
# 85 %, in pretraining or after finetuning, and adds a record to experiments/results.jsonl.
# usage: bash scripts/speedrun.sh [VARIANT [SEED [FOLDER]]]     defaults: vanilla, 0 and this project's own files;
#        FOLDER holds wiki.txt, birth_places_train.tsv and birth_dev.tsv
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VARIANT=${1:-vanilla} SEED=${2:-0}
if [ $# -gt 3 ] || ! grep -qF "\"$VARIANT\": Variant(" src/recipe.py || ! [[ $SEED =~ ^[0-9]+$ ]]; then
    sed -n '4,5s/^# //p' scripts/speedrun.sh >&2
    exit 2
fi
case ${3:-} in
    "") FOLDER=. ;;
    /*) FOLDER=$3 ;;
    *) FOLDER=$OLDPWD/$3 ;; # from where the user stands
esac
if ! [ -e "$FOLDER/wiki.txt" ]; then
    echo "$FOLDER/wiki.txt: no such file" >&2
    exit 2
fi
source scripts/setup.sh requirements.txt
exec .venv/bin/python scripts/experiment.py run --variant "$VARIANT" --seed "$SEED" --folder "$FOLDER"

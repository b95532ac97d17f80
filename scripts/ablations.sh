#!/usr/bin/env bash
# What is each ingredient of the fast recipe worth? The recipe, then without each ingredient, then each alone.
# One row each of ablation/results.tsv, by scripts/ablation.py: four minutes a row with 600 people, on two CPU cores.
# usage: bash scripts/ablations.sh [FOLDER [PEOPLE [NAME=VALUE ...]]]     this project's own files and 600 are the defaults;
#        PEOPLE may be all; NAME=VALUE are settings of src/recipe.py for every row
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
FOLDER=${1:-.} PEOPLE=${2:-600}
SETTINGS=${*:3}
if ! [[ $PEOPLE =~ ^([1-9][0-9]*|all)$ ]] || ! [ -e "$FOLDER/wiki.txt" ]; then
    sed -n '4,5s/^# //p' scripts/ablations.sh >&2
    exit 2
fi
source scripts/setup.sh requirements.txt
WORLD=(--folder "$FOLDER")
[ "$PEOPLE" != all ] && WORLD+=(--people "$PEOPLE")

FINETUNING="finetune_lr=6e-4 finetune_epochs=10 finetune_batch_size=256" # the course's

row() { # settings
    .venv/bin/python scripts/ablation.py vanilla "${WORLD[@]}" $SETTINGS "$@"
}

row
row by_odds=False                                                  # names drawn alike
row framed=0                                                       # the title in front, not the question
row salient=0                                                      # spans anywhere, and so neither of the two
row questions=0                                                    # no pairs among the documents
row muon_lr=0                                                      # AdamW for all
row muon_lr=0 pretrain_lr=1e-3                                     # the same, at a third of the rate
row $FINETUNING                                                    # the course's finetuning
row $FINETUNING questions=0 salient=0                              # Muon
row $FINETUNING muon_lr=0 questions=0 framed=0 by_odds=False       # names as spans
row $FINETUNING muon_lr=0 questions=0 by_odds=False                # names behind the question
row $FINETUNING muon_lr=0 questions=0 framed=0                     # likely names
row $FINETUNING muon_lr=0 salient=0                                # questions
row muon_lr=0 questions=0 salient=0                                # the gentle finetuning

#!/usr/bin/env bash
# The fast recipe against the clock: pretrain, finetune, evaluate; when 10 and 25 % were reached; all of it in speedrun/log.
# What pretraining printed, the accuracy on the way among it, is kept in speedrun/VARIANT.SEED.curve.
# usage: bash scripts/speedrun.sh [VARIANT [SEED [FOLDER]]]     vanilla, 0 and this project's own files are the defaults;
#        FOLDER holds wiki.txt, birth_places_train.tsv and birth_dev.tsv
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VARIANT=${1:-vanilla} SEED=${2:-0} FOLDER=${3:-.}
if [ $# -gt 3 ] || ! [[ $SEED =~ ^[0-9]+$ ]] || ! [ -e "$FOLDER/wiki.txt" ]; then
    sed -n '4,5s/^# //p' scripts/speedrun.sh >&2
    exit 2
fi
source scripts/setup.sh requirements.txt
mkdir -p speedrun
NAME=speedrun/$VARIANT.$SEED
rm -f "$NAME".*.state # of a run that was stopped; this one begins anew
RUN=".venv/bin/python -u src/run.py"
COMMON=("$VARIANT" "$FOLDER/wiki.txt" --recipe fast --seed "$SEED" --tb_expt_name speedrun)
[ "$VARIANT" = perceiver ] && COMMON+=(--bottleneck_dim 64)
PAIRS=(--finetune_corpus_path "$FOLDER/birth_places_train.tsv")
ASKED=(--eval_corpus_path "$FOLDER/birth_dev.tsv")

reached() { # notes when the accuracy on the asked people, which is only watched, passes 10 and 25 %
    local percent
    while read -r line; do
        echo "$line"
        if [[ $line =~ dev\ accuracy\ \(%\)\ ([0-9.]+) ]]; then
            percent=${BASH_REMATCH[1]%.*}
            for mark in 10 25; do
                if [ "$percent" -ge $mark ] && ! grep -q "^$mark %" "$NAME.reached"; then
                    echo "$mark % after $SECONDS s" >> "$NAME.reached"
                fi
            done
        fi
    done
}

: > "$NAME.reached"
SECONDS=0
$RUN pretrain "${COMMON[@]}" "${PAIRS[@]}" "${ASKED[@]}" --writing_params_path "$NAME.pretrain.params" |
    tee "$NAME.curve" | reached
$RUN finetune "${COMMON[@]}" "${PAIRS[@]}" --reading_params_path "$NAME.pretrain.params" \
    --writing_params_path "$NAME.finetune.params"
ACCURACY=$($RUN evaluate "${COMMON[@]}" "${ASKED[@]}" --reading_params_path "$NAME.finetune.params" \
    --outputs_path "$NAME.predictions" | grep Correct)
{
    echo "$(date -u '+%Y-%m-%d %H:%M') $VARIANT, seed $SEED, $FOLDER, commit $(commit)"
    cat "$NAME.reached"
    echo "$ACCURACY after $SECONDS s"
} | tee -a speedrun/log

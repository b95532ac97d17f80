#!/usr/bin/env bash
# What makes a fact that was read a fact that can be asked for? One row a setting, written to sweep/results.tsv.
# usage: bash scripts/sweep.sh                                17 rows, 30 to 60 minutes on two CPU cores
#        bash scripts/sweep.sh PEOPLE LINES EPOCHS VARIANT    one row
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ $# != 0 ] && [ $# != 4 ]; then
    sed -n '3,4s/^# //p' scripts/sweep.sh >&2
    exit 2
fi
source scripts/setup.sh requirements.txt
mkdir -p sweep
[ -s sweep/results.tsv ] || printf 'people\tlines\tepochs\tvariant\tseconds\taccuracy\tcommit\n' > sweep/results.tsv

row() { # people, lines a person, epochs, variant
    local data=sweep/data-$1-$2 name=sweep/$4-$1-$2-$3 extra=""
    [ "$4" = perceiver ] && extra="--bottleneck_dim 64"
    local common="$4 $data/wiki.txt $extra"
    local train="$common --recipe fast --tb_expt_name sweep --finetune_corpus_path $data/birth_places_train.tsv"
    .venv/bin/python corpus/build.py --people "$1" --lines_per_person "$2" --out "$data"
    SECONDS=0
    rm -f "$name".*.state # of a row that was stopped
    .venv/bin/python src/run.py pretrain $train --pretrain_epochs "$3" --writing_params_path $name.pretrain.params
    .venv/bin/python src/run.py finetune $train --reading_params_path $name.pretrain.params \
        --writing_params_path $name.finetune.params
    local accuracy
    accuracy=$(.venv/bin/python src/run.py evaluate $common --reading_params_path $name.finetune.params \
        --eval_corpus_path "$data/birth_dev.tsv" --outputs_path $name.predictions | grep Correct)
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" $SECONDS "${accuracy#Correct: }" "$(commit)" |
        tee -a sweep/results.tsv
}

if [ $# = 4 ]; then
    row "$@"
else
    for epochs in 4 15; do # 16 and 60 readings of each person
        row 600 4 $epochs vanilla
        row 600 4 $epochs rope
        row 600 4 $epochs perceiver
        row 600 4 $epochs synthesizer
        row 300 4 $epochs vanilla  # fewer people
        row 1200 4 $epochs vanilla # more people
    done
    row 600 1 16 vanilla # 16 and 60 readings of one line
    row 600 1 60 vanilla
    row 600 8 2 vanilla # 16 and 64 readings of eight lines
    row 600 8 8 vanilla
    row 600 4 8 vanilla # 32 readings
fi

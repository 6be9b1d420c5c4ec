#!/usr/bin/env bash
# Run and publish the experiments, the most important first; then `make results`.
#
#   scripts/reproduce.sh                      all of them, many hours on two cores
#   scripts/reproduce.sh optimizers qkv       some of them
#
# Each piece (a stage of an experiment under one condition) takes less than two hours on two
# cores. Killed at any time and started again it goes on from the last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python

experiments=("$@")
if [ ${#experiments[@]} -eq 0 ]; then
    experiments=(optimizers qkv orthogonalizer equal_time routing scale_rule aux_lr batch_size gpt2_small cost)
fi
for name in "${experiments[@]}"; do
    conditions=$("$python" -c "from bench.study import load; print(*load('$name').conditions)")
    for stage in tune final; do
        for condition in $conditions; do
            "$python" bench/train.py experiment="$name" stage=$stage condition="$condition" tracker=none
        done
    done
    "$python" scripts/publish.py "$name"
done
"$python" bench/report.py --published

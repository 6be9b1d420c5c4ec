#!/usr/bin/env bash
# Measure on a machine with a GPU and without a network, in a copy of the checkout with carried/.
#
#   scripts/gpu_pack.py                                           before, where there is a network
#   MUONBENCH_COMMIT=… OUT=FOLDER scripts/gpu.sh first-light      120 s: GPU tests, a step of each kind
#   MUONBENCH_COMMIT=… OUT=FOLDER scripts/gpu.sh run              400 s: what is to be published
#   scripts/gpu_unpack.py FOLDER --commit …                       after, where results/ is committed
#
# MUONBENCH_REHEARSAL=1: the same with tiny sizes on the CPU. PYTHON: another python3.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" scripts/gpu_parts.py "$@"

#!/usr/bin/env bash
# Measure on a machine with a GPU but no network, in a copy of the checkout with carried/.
#
#   scripts/gpu_pack.py                                           first, on a machine with a network
#   MUONBENCH_COMMIT=… OUT=FOLDER scripts/gpu.sh first-light      120 s: GPU tests, a step of each kind
#   MUONBENCH_COMMIT=… OUT=FOLDER scripts/gpu.sh run              400 s: the results to publish
#   scripts/gpu_unpack.py FOLDER --commit …                       last, where results/ is committed
#
# MUONBENCH_REHEARSAL=1: the same with tiny sizes on the CPU. PYTHON: another python3.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" scripts/gpu_parts.py "$@"

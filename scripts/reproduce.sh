#!/usr/bin/env bash
# Run and publish the experiments, the most important first; then `make results`.
#
#   scripts/reproduce.sh communication        what a step communicates, one to four processes
#   scripts/reproduce.sh momenta              momenta of two runs, their spectra, checks on these
#   scripts/reproduce.sh                      all of them, many hours on two cores
#   scripts/reproduce.sh optimizers qkv       some of them
#
# Each piece (a stage of an experiment under one condition) takes less than two hours on two
# cores. After a kill at any time it resumes from the last checkpoint when started again.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python

# The step benchmark over processes of this machine, which should be idle otherwise: processes wait
# for each other. Each has one thread, so that they do not compete for cores.
communication() {
    local nano='model=gpt2_nano train.device=cpu'
    local whole='"hybrid qkv=per_head","hybrid parallel.muon=blockwise",muon'
    export OMP_NUM_THREADS=1
    step() {  # processes, strategy, optimizers
        "$python" -m torch.distributed.run --standalone --nproc-per-node "$1" \
            bench/step.py $nano parallel="$2" "optimizers=[$3]" "rounds=${ROUNDS:-10}"
    }
    step 1 fsdp2 "hybrid,$whole"
    for processes in 2 4; do
        step $processes ddp 'hybrid,"hybrid parallel.muon=replicate",muon'
        step $processes fsdp2 "hybrid,\"hybrid parallel.muon=gather\",$whole"
        step $processes tp 'hybrid,"hybrid parallel.muon=distribute","hybrid qkv=per_head","hybrid parallel.muon=blockwise"'
    done
    step 4 fsdp2_tp "hybrid,\"hybrid parallel.muon=gather\",$whole"
}
if [ "${1:-}" = communication ]; then
    communication
    "$python" bench/report.py --published
    exit
fi

# Momenta of two runs, minutes each: their spectra, the shipped ones (results/ortho/momenta/), and
# coefficients measured on and fitted to both.
momenta() {
    local kept='optimizer=hybrid train.steps=300 train.precision=fp32 train.save_momentum_every=50'
    "$python" bench/train.py model=gpt2_nano $kept optimizer.lr_scale=4 \
        train.batch_size=8 train.sequence_length=128 tracker=none
    "$python" bench/train.py model=vit_nano $kept optimizer.lr_scale=0.5 \
        train.batch_size=32 tracker=none
    "$python" bench/ortho.py spectra=true
    "$python" scripts/build_momenta.py results/runs/{gpt2,vit}_nano-hybrid-*/
    "$python" bench/ortho.py checks=true sources=momentum
    "$python" bench/ortho.py fit=true sources=momentum momentum=results/ortho/momenta fitting.starts=128
}
if [ "${1:-}" = momenta ]; then
    momenta
    "$python" bench/report.py --published
    exit
fi

experiments=("$@")
if [ ${#experiments[@]} -eq 0 ]; then
    experiments=(
        pilot vision_pilot language controls schedules large_batch equal_time optimizers
        qkv orthogonalizer iterations low_precision routing sparse scale_rule
        pretrain finetune lora width clip momentum_bits field
        aux_lr batch_size gpt2_small cost
    )
fi
for name in "${experiments[@]}"; do
    if [ "$name" = equal_time ]; then  # on an otherwise idle machine
        OMP_NUM_THREADS=1 "$python" bench/step.py name=gpt2_pico-cpu model=gpt2_pico \
            train.sequence_length=128 train.precision=fp32 orthogonalizer.dtype=bf16 'batches=[2,4,8,32]'
    elif [ "$name" = iterations ]; then
        keller='hybrid orthogonalizer=keller orthogonalizer.dtype=bf16'
        OMP_NUM_THREADS=1 "$python" bench/step.py name=gpt2_pico-iterations model=gpt2_pico \
            train.sequence_length=128 train.precision=fp32 train.device=cpu 'batches=[2,4,8]' \
            "optimizers=[\"$keller\",\"$keller orthogonalizer.steps=4\",\"$keller orthogonalizer.steps=3\",\"hybrid orthogonalizer=cubic5 orthogonalizer.dtype=bf16\",\"hybrid orthogonalizer=exact\"]"
    elif [ "$name" = field ]; then
        OMP_NUM_THREADS=1 "$python" bench/step.py name=gpt2_pico-field model=gpt2_pico \
            train.precision=fp32 train.device=cpu orthogonalizer.dtype=fp32 \
            'optimizers=[adamw,hybrid,muon,lion,ademamix,mars,schedule_free_adamw,scion,pytorch_optimizer_soap,psgd_kron,muonh]'
    fi
    "$python" bench/train.py experiment="$name" tracker=none
    "$python" scripts/publish.py "$name"
done
[ $# -gt 0 ] || communication
"$python" bench/report.py --published

"""The measurements of scripts/gpu.sh: the parts of each of its calls, the most decisive first."""

from dataclasses import dataclass

LIMITS = {"first-light": 120, "run": 400}  # seconds per call


@dataclass(frozen=True)
class Part:
    """The words after `python`, with a time limit in seconds; tiny: more words for a rehearsal."""

    name: str
    seconds: float
    command: str
    tiny: str = ""


SMALL = "model.layers=1 model.width=32 model.heads=2 train.device=cpu train.precision=fp32"
SHORT = (
    "train.steps=2 train.batch_size=2 data.eval_sequences=2 data.final_eval_sequences=null "
    "orthogonalizer.dtype=fp32"
)
LONG = "train.sequence_length=1024"
TEXT = "train.sequence_length=32"
FEW = "rounds=3 batches=[1,2,4]"
PEER = '"gram_newton_schulz optimizer.roles.hidden.ns_use_kernels=false"'
BEGUN = '"hybrid qkv=fused","hybrid qkv=fused optimizer.overlap=backward"'
QKV = '"hybrid qkv=fused","hybrid qkv=per_head"'
NANO = "tracker=none train.steps=4 train.eval_every=2 train.reference_steps=2"
GPU = "train.device=cuda train.precision=bf16 orthogonalizer.dtype=bf16 train.checkpoint_every=null"
SET_UP = Part("set-up", 15, "")  # its command depends on what was carried
PARTS = {
    "first-light": (
        SET_UP,
        Part("tests", 47, "-m pytest -m gpu tests/gpu -p no:cacheprovider"),
        Part(
            "a step of each optimizer",
            26,
            "bench/step.py model=gpt2_nano name=first-light batches=[1,2,4] rounds=3 "
            f"optimizers=[adamw,hybrid,{QKV},muon,torch_muon,normuon,{PEER}]",
            f"{SMALL} {TEXT} optimizers=[adamw,hybrid,{QKV}]",
        ),
        Part("text", 12, f"bench/train.py model=gpt2_nano {NANO}", f"{SMALL} {SHORT} {TEXT}"),
        Part("images", 12, f"bench/train.py model=vit_nano {NANO}", f"{SMALL} {SHORT}"),
        Part(
            "orthogonalization",
            8,
            "bench/ortho.py methods=keller shapes=256x1024 steps=5 dtypes=[fp32,bf16] "
            "pictures=false",
            "shapes=16x32",
        ),
    ),
    "run": (
        SET_UP,
        Part("ceilings", 12, "scripts/gpu_ceilings.py", "size=64"),
        Part(
            "a step of GPT-2 small",
            90,
            f"bench/step.py model=gpt2 {LONG} batches=[8,16,32] "
            f"optimizers=[adamw,hybrid,{BEGUN},muon,torch_muon,{PEER}]",
            f"{SMALL} {TEXT} {FEW} optimizers=[adamw,hybrid]",
        ),
        Part(
            "the same, compiled",
            60,
            f"bench/step.py model=gpt2 name=gpt2-cuda-compiled train.compile=true {LONG} "
            "batches=[8,16,32] optimizers=[adamw,hybrid]",
            f"{SMALL} {TEXT} {FEW} train.compile=false name=gpt2-compiled",
        ),
        Part(
            "gaps and overlap",
            40,
            f"bench/step.py model=gpt2 name=gpt2-cuda-gaps timeline=true {LONG} "
            f"batches=[1,8,32] rounds=5 optimizers=[{BEGUN}]",
            f"{SMALL} {TEXT} {FEW} name=gpt2-gaps",
        ),
        Part(
            "a step of ViT-S",
            23,
            "bench/step.py model=vit batches=[32,256,1024]",
            f"{SMALL} {FEW} optimizers=[adamw,hybrid]",
        ),
        Part(
            "GPT-2 small trained",
            120,
            "bench/train.py experiment=gpt2_small_gpu tracker=none train.device=cuda",
            f"{SMALL} {SHORT} {TEXT} study.grid=[0.5,1] study.final_seeds=[0]",
        ),
        Part(
            "cost and memory",
            28,
            f"bench/train.py experiment=cost tracker=none {GPU}",
            f"{SMALL} {SHORT} condition=gpt2 {TEXT}",
        ),
        Part(
            "dtypes against fp64",
            12,
            "bench/ortho.py methods=[keller,polar_express] shapes=[256x1024,1024x1024] steps=5 "
            "dtypes=[fp64,fp32,bf16,fp16] pictures=false",
            "shapes=16x32 methods=keller",
        ),
    ),
}

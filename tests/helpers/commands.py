"""Tiny settings, and the commands as a person types them, from the checkout."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

from bench.records import record
from bench.settings import config

ROOT = Path(__file__).resolve().parents[2]
# As many threads in the commands as here: the models are too small for more than one, and the
# workers share the machine.
THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "1"))

# What a shell starts in the background ignores Ctrl-C, and so would the commands under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FP32 = ["train.precision=fp32", "orthogonalizer.dtype=fp32", "train.device=cpu"]
TINY = [  # the same numbers, up to rounding, on every machine
    *FP32,
    "model.layers=2",
    "model.width=32",
    "model.heads=4",
    "train.steps=6",
    "train.batch_size=2",
    "train.sequence_length=32",
    "train.eval_every=3",
    "train.checkpoint_every=2",
    "train.reference_steps=2",
    "schedule.warmup_steps=1",
    "data.eval_sequences=4",
    "data.final_eval_sequences=8",
]


def settle(*overrides: str) -> config.Settings:
    """The settings that a command line gives, checked and resolved."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return config.settle(compose("train", overrides=list(overrides)))


def command(*arguments: str, entry: str = "train", **options) -> subprocess.CompletedProcess:
    """`python bench/ENTRY.py …` as a person types it, from the checkout or another folder."""
    script = f"{ROOT}/bench/{entry}.py" if "cwd" in options else f"bench/{entry}.py"
    return subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        **{"timeout": 1200, "cwd": ROOT} | options,  # a busy machine fails none
    )


def torchrun(processes: int, *arguments: str, entry: str = "train") -> subprocess.CompletedProcess:
    """The command under torchrun, a thread for each process."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launch, f"--nproc-per-node={processes}", f"bench/{entry}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def records(results: Path) -> dict[str, dict]:
    found = {f.parent.name: record.read(f.parent) for f in results.glob("runs/*/record.json")}
    return dict(sorted(found.items()))


def start(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "bench/train.py", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def wait_for_step(results: Path, step: int, process: subprocess.Popen, runs: int = 1) -> None:
    """Until the metrics of so many runs have the step, or the process ended."""
    while process.poll() is None:
        metrics = [file.read_text() for file in results.glob("runs/*/metrics.jsonl")]
        if sum(f'"step": {step},' in text for text in metrics) >= runs:
            return
        time.sleep(0.02)
    raise AssertionError(process.stdout.read())

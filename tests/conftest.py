"""What the tests share: a cache of prepared data, tiny settings, and the command itself."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parent.parent
if "BF16" in os.environ:  # `auto` as it would be on another processor, in the commands too
    answering = str(ROOT / "tests" / "bf16")
    os.environ["PYTHONPATH"] = os.pathsep.join([answering, os.environ.get("PYTHONPATH", "")])
    if not any(type(finder).__name__ == "Answering" for finder in sys.meta_path):
        runpy.run_path(f"{answering}/sitecustomize.py")

# What they import asks for the answer.
from bench.records import cell, record  # noqa: E402
from bench.settings import config  # noqa: E402
from bench.training import run  # noqa: E402

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
]


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory):
    """Prepared data is cached once for all tests, away from the user's own cache."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    old = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(base / "shared-cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    if old is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = old


@pytest.fixture(scope="session", autouse=True)
def threads():
    old = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(old)


def settle(*overrides: str) -> config.Settings:
    """The settings that a command line gives, checked and resolved."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return config.settle(compose("train", overrides=list(overrides)))


@pytest.fixture
def train(tmp_path):
    """Train a tiny model in this process; returns (outcome, record, what was said)."""

    def start(*overrides: str, results: Path = tmp_path):
        settings = settle(*TINY, "tracker=none", f"results_dir={results}", *overrides)
        name = cell.name(settings)
        said: list[str] = []
        outcome = run.run(settings, name, said.append)
        return outcome, record.read(results / "runs" / name), said

    return start


@pytest.fixture
def logged(monkeypatch):
    """What each W&B run of a test gets: name, group, config, rows, and the summary at its end."""
    wandb = pytest.importorskip("wandb")
    init, runs = wandb.init, []

    def spy(**options):
        run = init(**options)
        log, finish = run.log, run.finish
        seen = {"name": run.name, "group": run.group, "config": dict(run.config), "rows": []}

        def finish_after_summary(**how):
            summary = dict(run.summary)
            seen["summary"] = {k: v for k, v in summary.items() if not k.startswith("_")}
            finish(**how)

        monkeypatch.setattr(run, "log", lambda row: (seen["rows"].append(row), log(row)))
        monkeypatch.setattr(run, "finish", finish_after_summary)
        runs.append(seen)
        return run

    monkeypatch.setattr(wandb, "init", spy)
    yield runs
    wandb.teardown()


def command(*arguments: str, entry: str = "train", **options) -> subprocess.CompletedProcess:
    """`python bench/ENTRY.py …` as a person types it, from the checkout."""
    return subprocess.run(
        [sys.executable, f"bench/{entry}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
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

"""A result's origin: the command, the machine, the versions, and the commit of the code."""

import functools
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

COMMIT = "MUONBENCH_COMMIT"  # an environment variable
PACKAGES = ("torch", "transformers", "datasets", "hydra-core", "numpy", "wandb")


@functools.cache
def made(device: str = "cpu") -> dict[str, Any]:
    """How and where a result was made; called once per result, because it runs git."""
    return {"command": command(), "environment": environment(device)}


def command() -> str:
    return shlex.join(["python", *sys.argv])


def environment(device: str) -> dict[str, Any]:
    """Versions, machine, threads, preloaded libraries, the code; `gpu` only if `device` is one."""
    import torch

    return {
        "python": platform.python_version(),
        **{package: installed(package) for package in PACKAGES},
        "platform": platform.platform(terse=True),
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "preload": preloaded(),
        "commit": commit(),
        "commit_date": git("show", "--no-patch", "--format=%cI", "HEAD"),
        "dirty": dirty(),
    }


def preloaded() -> str | None:
    """Names of libraries that LD_PRELOAD puts before torch's own: they can change what is timed."""
    paths = re.split(r"[\s:]+", os.environ.get("LD_PRELOAD", ""))
    return ", ".join(Path(path).name for path in paths if path) or None


def commit() -> str | None:
    """The commit of the code: from git, or from COMMIT if the code has no .git folder."""
    return git("rev-parse", "HEAD") or os.environ.get(COMMIT) or None


def dirty() -> bool | None:
    """Whether the code has uncommitted changes; None if git cannot tell.

    Results replaced by this command or an earlier one do not count.
    """
    changes = git("status", "--porcelain", "--untracked-files=no", ".", ":!results")
    return None if changes is None else bool(changes)


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def slug(name: str) -> str:
    """A GPU's name for use in file names: nvidia-h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def git(*arguments: str) -> str | None:
    """git's output for the checkout that contains this file; None without a checkout or git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # git would use an enclosing checkout
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

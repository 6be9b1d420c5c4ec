"""What the tests share: a cache of prepared data, tiny settings, and the command itself."""

import importlib
import json
import os
import re
import runpy
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

pytest.register_assert_rewrite("tests.helpers")
# How long an example takes is the machine's affair: a busy one must not fail a test.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent
if "BF16" in os.environ:  # `auto` as it would be on another processor, in the commands too
    answering = str(ROOT / "tests" / "bf16")
    os.environ["PYTHONPATH"] = os.pathsep.join([answering, os.environ.get("PYTHONPATH", "")])
    if not any(type(finder).__name__ == "Answering" for finder in sys.meta_path):
        runpy.run_path(f"{answering}/sitecustomize.py")

# What they import asks for the answer.
from bench.records import cell, record  # noqa: E402
from bench.studies import standing  # noqa: E402
from bench.training import run  # noqa: E402
from tests.helpers.commands import THREADS, TINY, settle  # noqa: E402


def pytest_configure(config):
    """Only the set for a GPU sees one: all else would turn to it, and to bf16, by `auto`."""
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


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
def judged(monkeypatch):
    """Without reference lines an experiment is judged, though it calls itself early training."""
    monkeypatch.setattr(standing, "DECLARED", "not among any limits")


@pytest.fixture
def script(monkeypatch):
    """A module of scripts/ by its name, as the scripts import each other."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module


@pytest.fixture
def logged(monkeypatch):
    """What each W&B run of a test gets: name, group, config, rows, and the summary at its end.

    artifact: the files that it keeps, by their names.
    """
    wandb = pytest.importorskip("wandb")
    init, runs = wandb.init, []

    def spy(**options):
        run = init(**options)
        log, finish, keep = run.log, run.finish, run.log_artifact
        seen = {"name": run.name, "group": run.group, "config": dict(run.config), "rows": []}
        seen |= {"job_type": run.job_type, "tags": run.tags, "artifact": {}}

        def keep_and_note(artifact):
            for name, entry in artifact.manifest.entries.items():
                seen["artifact"][name] = json.loads(Path(entry.local_path).read_text())
            return keep(artifact)

        def finish_after_summary(**how):
            summary = dict(run.summary)
            seen["summary"] = {k: v for k, v in summary.items() if not k.startswith("_")}
            finish(**how)

        monkeypatch.setattr(run, "log", lambda row: (seen["rows"].append(row), log(row)))
        monkeypatch.setattr(run, "finish", finish_after_summary)
        monkeypatch.setattr(run, "log_artifact", keep_and_note)
        runs.append(seen)
        return run

    monkeypatch.setattr(wandb, "init", spy)
    yield runs
    wandb.teardown()

"""Sweeps by Hydra's launchers: joblib, submitit's local executor; Ray is only composed."""

import os
import signal
import subprocess
import time
import tomllib

import pytest
from hydra import compose, initialize_config_dir

from bench.records import owner
from bench.training import sweep
from tests.helpers.commands import ROOT, TINY, command, records, start, wait_for_step

OFFLINE = [*TINY, "tracker=none"]
LONG = ["train.steps=100000", "train.eval_every=100000", "train.checkpoint_every=null"]


@pytest.mark.parametrize("file", sorted((ROOT / "conf/hydra/launcher").glob("*.yaml")))
def test_every_launcher_composes_and_belongs_to_an_extra(file):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        whole = compose("train", [f"hydra/launcher={file.stem}"], return_hydra_config=True)
    extra, package = sweep.PLUGINS[file.stem.split("_")[0]]
    assert whole.hydra.launcher["_target_"].split(".")[1] == package.replace("-", "_")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"][extra][0].startswith(package)


@pytest.mark.parametrize("words", [["-m", "seed=0,1"], ["experiment=smoke"]])
def test_a_launcher_that_is_not_installed_is_refused_in_one_line(tmp_path, words):
    done = command(*words, *OFFLINE, "hydra/launcher=ray_cluster", f"results_dir={tmp_path}")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == "error: hydra/launcher=ray_cluster: needs pip install -e '.[ray]'\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.more
def test_joblib_trains_side_by_side_with_the_cores_shared_out(tmp_path):
    """AdamW has no use for qkv: one of its two jobs trains the cell, and the other lists it."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    words = ["-m", "hydra/launcher=joblib_local", "optimizer=adamw,hybrid", "qkv=fused,per_head"]
    done = command(*words, *OFFLINE, f"results_dir={tmp_path}", env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stdout.strip().splitlines()[-1]
    counts = set(last.split(", "))
    assert counts in ({"3 finished", "1 running"}, {"3 finished", "1 skipped"}), last
    found = records(tmp_path).values()
    assert len(found) == 3
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {one["environment"]["threads"] for one in found} == {share}
    assert all(one["command"].startswith("python bench/train.py -m optimizer=") for one in found)


@pytest.mark.long
@pytest.mark.parametrize("to", ["all its processes", "the command alone"])
def test_ctrl_c_on_a_joblib_sweep_leaves_checkpoints(tmp_path, to):
    words = ["-m", "hydra/launcher=joblib_local", "seed=0,1,2,3", *OFFLINE, *LONG]
    process = start(*words, f"results_dir={tmp_path}", start_new_session=True)
    wait_for_step(tmp_path, 3, process, runs=2)
    if to == "all its processes":  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "4 interrupted" in said and "Traceback" not in said
    assert len(list(tmp_path.glob("runs/*/checkpoint/step-*"))) == 2
    assert not list(tmp_path.glob("runs/*/owner*"))
    assert wait_until_alone(process.pid)


def wait_until_alone(session: int) -> bool:
    """Whether all processes of a session end within some seconds."""
    for _ in range(100):
        found = subprocess.run(["pgrep", "--session", str(session)], capture_output=True, text=True)
        if all(owner.started(int(pid)) is None for pid in found.stdout.split()):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.long
def test_a_preempted_job_is_queued_again_and_goes_on_from_where_it_was(tmp_path):
    """submitit's local executor does as Slurm: it warns by SIGUSR2, and starts the job again."""
    words = ["-m", "hydra/launcher=slurm_local", "seed=0,1", *OFFLINE, "train.reference_steps=0"]
    words += ["train.steps=400", "train.eval_every=400", "train.checkpoint_every=null"]
    process = start(*words, f"results_dir={tmp_path}")
    wait_for_step(tmp_path, 3, process)
    trains = next(f for f in tmp_path.glob("runs/*/metrics.jsonl") if '"step": 3,' in f.read_text())
    (claim,) = owner.chain(trains.parent)
    os.kill(claim.owner["pid"], signal.SIGUSR2)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and "2 finished" in said, said
    logs = [f.read_text() for f in tmp_path.glob("sweeps/*/.submitit/*/*.err")]
    assert sum("this job is preempted" in log for log in logs) == 1
    assert sum("resuming from step" in log for log in logs) == 1
    assert all(one["steps"] == 400 for one in records(tmp_path).values())


@pytest.mark.long
def test_a_study_trains_by_a_launcher(tmp_path):
    words = ["experiment=smoke", "stage=tune", "condition=text", "arm=adamw", "tracker=none"]
    words += ["train.steps=4", "hydra/launcher=joblib_local", f"results_dir={tmp_path}"]
    done = command(*words)
    assert done.returncode == 0 and "3/3 tune" in done.stderr, done.stdout + done.stderr
    assert "all runs asked for have ended" in done.stderr
    assert len(records(tmp_path)) == 3


@pytest.mark.more
def test_a_killed_process_of_a_joblib_sweep_ends_neither_the_others_nor_the_list(tmp_path):
    words = ["-m", "hydra/launcher=joblib_local", "seed=0,1,2", *OFFLINE, "train.steps=200"]
    process = start(*words, "train.eval_every=100", f"results_dir={tmp_path}")
    wait_for_step(tmp_path, 6, process)
    trains = next(f for f in tmp_path.glob("runs/*/metrics.jsonl") if '"step": 6,' in f.read_text())
    (claim,) = owner.chain(trains.parent)
    os.kill(claim.owner["pid"], signal.SIGKILL)
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 0 and "3 finished" in said, said
    assert "Traceback" not in said
    assert all(one["steps"] == 200 for one in records(tmp_path).values())

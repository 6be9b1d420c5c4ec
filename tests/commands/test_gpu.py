"""scripts/gpu.sh: nobody looks while it runs: every part is survived. Rehearsed without a GPU."""

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT


def lines(folder: Path, call: str = "run") -> list[dict]:
    return [json.loads(line) for line in (folder / f"{call}.jsonl").read_text().splitlines()]


def test_the_parts_of_a_call_fit_its_time(script):
    plan = script("gpu_plan")
    for call, limit in plan.LIMITS.items():
        parts = plan.PARTS[call]
        assert sum(part.seconds for part in parts) <= limit
        assert len({part.name for part in parts}) == len(parts)


def test_of_a_setting_that_is_named_twice_the_last_counts(script):
    parts, plan = script("gpu_parts"), script("gpu_plan")
    part = plan.Part("a", 1, 'bench/step.py b=1 optimizers=[a,"b c=d"] rounds=3', "b=2 e")
    words = parts.command(parts.rehearsed(part), ROOT / "carried" / "run")
    named = ["b=2", 'optimizers=[a,"b c=d"]', "rounds=3", "e"]
    assert words == ["bench/step.py", *named, "results_dir=carried/run"]


@pytest.fixture
def attempted(script, tmp_path, monkeypatch):
    """Run parts that are Python programs within so many seconds; their lines, and what failed."""
    parts, plan = script("gpu_parts"), script("gpu_plan")
    results = tmp_path / "results"
    monkeypatch.setattr(parts, "command", lambda part, folder: ["-c", part.command])

    def go(limit: float, *programs: tuple[str, float, str]):
        out = parts.Out(tmp_path, "run", results)
        failed = parts.run([plan.Part(*program) for program in programs], limit, out)
        return lines(tmp_path), failed

    return go


WRITE = """
from pathlib import Path
folder = Path(r'{}') / 'results' / 'steps'
folder.mkdir(parents=True, exist_ok=True)
(folder / '{}.json').write_text('{{}}')
"""


@pytest.mark.more
def test_parts_that_fail_or_take_too_long_are_noted_and_survived(attempted, tmp_path):
    """And what a part had finished when its time was out has been taken, children and all."""
    child = f"import subprocess, sys\n{WRITE.format(tmp_path, 'half')}"
    child += "print('begun', flush=True)\nsubprocess.run(['sleep', '60'])"
    began = time.monotonic()
    found, failed = attempted(
        30,
        ("fails", 5, "raise SystemExit('no such thing')"),
        ("hangs", 3, child),
        ("works", 20, WRITE.format(tmp_path, "whole")),
    )
    assert time.monotonic() - began < 25
    assert [line["status"] for line in found] == ["failed", "out of time", "finished"]
    assert failed == ["fails", "hangs"]
    assert [line["files"] for line in found] == [[], ["steps/half.json"], ["steps/whole.json"]]
    assert found[0]["said"] == ["no such thing"] and found[0]["exit_status"] == 1
    assert found[1]["said"] == ["begun"] and found[1]["exit_status"] is None
    with tarfile.open(tmp_path / "run.tar") as tar:
        assert tar.getnames() == ["steps/half.json", "steps/whole.json"]


@pytest.mark.more
def test_a_part_may_take_what_those_before_it_left_but_not_what_is_for_those_after(attempted):
    sleep = "import time; time.sleep(3)"
    _, failed = attempted(14, ("a", 8, "pass"), ("b", 1, sleep), ("c", 5, "pass"))
    assert failed == []
    found, failed = attempted(11, ("a", 1, sleep), ("b", 10, "pass"))
    assert failed == ["a"] and found[0]["status"] == "out of time"


@pytest.mark.more
def test_nothing_of_a_machine_is_in_what_a_part_said(attempted, tmp_path):
    said = "os.getcwd() + '/bench/a.py, ' + sys.prefix + '/lib/python3/site-packages/hydra/b.py'"
    found, _ = attempted(20, ("says", 20, f"import os, sys; print({said})"))
    assert found[0]["said"] == ["bench/a.py, site-packages/hydra/b.py"]
    assert str(ROOT) not in (tmp_path / "run.log").read_text()


def test_out_has_to_be_set():
    environment = {key: value for key, value in os.environ.items() if key != "OUT"}
    done = gpu("run", environment)
    assert done.returncode == 1 and done.stderr.startswith("error: OUT: not set")


def gpu(call: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "scripts/gpu.sh", call],
        cwd=ROOT,
        env=environment | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("run", marks=pytest.mark.long),
        pytest.param("first-light", marks=pytest.mark.more),
    ],
)
def test_a_rehearsal_runs_every_part_and_leaves_whole_records(call, script, tmp_path):
    plan = script("gpu_plan")
    gpu(call, os.environ | {"MUONBENCH_REHEARSAL": "1", "OUT": str(tmp_path)})
    first, *found = lines(tmp_path, call)
    assert first["rehearsal"] and first["call"] == call
    assert [line["part"] for line in found] == [part.name for part in plan.PARTS[call]]
    ended = {line["part"]: line["status"] for line in found}
    ended.pop("tests", None)  # all skipped where there is no GPU
    assert set(ended.values()) == {"finished"}, (tmp_path / f"{call}.log").read_text()
    assert len(list(tmp_path.iterdir())) <= 8
    assert str(ROOT) not in (tmp_path / f"{call}.log").read_text()
    with tarfile.open(tmp_path / f"{call}.tar") as tar:
        tar.extractall(tmp_path / "back", filter="data")
    runs = list(tmp_path.glob("back/runs/*/record.json"))
    assert all(json.loads(run.read_text())["status"] == "finished" for run in runs) and runs
    assert list(tmp_path.glob("back/steps/*.json")) and list(tmp_path.glob("back/ortho/*.json"))
    text = "".join(run.read_text() for run in tmp_path.glob("back/**/*.json"))
    assert str(ROOT) not in text and str(tmp_path) not in text


@pytest.mark.parametrize("call", ["first-light", "run"])
def test_the_committed_rehearsal_is_of_the_parts_there_are(call, script):
    """Rehearse again where this fails: docs/gpu.md."""
    log = (ROOT / "results" / "gpu" / "rehearsal.log").read_text()
    parts = script("gpu_parts")
    for part in map(parts.rehearsed, script("gpu_plan").PARTS[call]):
        assert f"finished: {part.name}, " in log
        if part.command:
            words = parts.command(part, ROOT / "carried" / call)
            assert f"--- {part.name}: python {' '.join(words)}\n" in log
    assert not re.search(r"/(tmp|root|home|usr|opt|work)/", log)

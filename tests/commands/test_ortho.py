"""`python bench/ortho.py` as a person uses it."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import commands
from tests.helpers.commands import ROOT

SMALL = ["shapes=16x24", "dtypes=fp32", "steps=3"]


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "bench/ortho.py", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(*arguments: str) -> tuple[int, str, str]:
    done = commands.command(*arguments, entry="ortho")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.more
def test_a_session_shows_a_table_and_leaves_records(tmp_path):
    """One of the methods diverges: a result like another, without a warning on the screen."""
    status, out, err = command("methods=[keller,[4,5,1]]", *SMALL, f"results_dir={tmp_path}")
    assert status == 0, err
    assert "keller" in out and "diverged at step" in " ".join(out.split())
    assert "arning" not in out + err and "4 records" in err
    names = {f.stem for f in tmp_path.glob("ortho/*.json")}
    assert "keller-T3-recursion-fp64-16x24-gaussian" in names and len(names) == 4
    assert (tmp_path / "ortho" / "curves.svg").exists()
    one = json.loads((tmp_path / "ortho" / f"{sorted(names)[-1]}.json").read_text())
    assert one["command"].startswith("python bench/ortho.py 'methods=")


@pytest.mark.more
def test_mistakes_are_lines_not_tracebacks_and_leave_nothing(tmp_path):
    results = f"results_dir={tmp_path}/new"
    for wrong, words in {
        "methods=kellr": "methods=kellr: no such set",
        "sources=[gaussian,momentum]": "save_momentum_every",
    }.items():
        status, out, err = command(wrong, results)
        assert status == 1 and words in err and len(err.strip().splitlines()) <= 2 and not out
    assert not list(tmp_path.iterdir())
    status, _, err = command("method=keller", results)
    assert status == 1 and "method" in err and "Traceback" not in err


@pytest.mark.long
def test_a_sweep_goes_on_after_a_failure_and_tells_it(tmp_path):
    sweep = ["-m", "methods=keller,kellr,taylor", *SMALL, "pictures=false"]
    status, _, err = command(*sweep, f"results_dir={tmp_path}")
    assert status == 1 and "failed: methods=kellr" in err
    names = {f.stem for f in tmp_path.glob("ortho/*.json")}
    assert {n.split("-")[0] for n in names} == {"keller", "taylor"}


@pytest.mark.more
def test_ctrl_c_keeps_finished_records(tmp_path):
    process = start(
        f"results_dir={tmp_path}",
        "methods=keller",
        *SMALL,
        "shapes=[16x24,4096x4096]",
        "samples=100",
        "pictures=false",
    )
    while len(list(tmp_path.glob("ortho/*.json"))) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "interrupted" in err
    for file in tmp_path.glob("ortho/*.json"):
        assert json.loads(file.read_text())["status"] == "ok"


def test_help_names_the_settings():
    status, out, _ = command("--help")
    assert status == 0
    for word in ("methods", "polar_express", "sources=momentum", "checks=true", "samples"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80

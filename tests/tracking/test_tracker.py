"""W&B: one offline run per cell, silent, and never the reason why a run is lost."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bench.tracking import tracker as tracking

NONE = {"name": "none"}
OFFLINE = {"name": "wandb", "project": "muonbench", "mode": "offline"}
TRAIN_LINE = {
    "step": 1,
    "tokens": 4096,
    "seconds": 0.4,
    "train_loss": float("nan"),
    "lr": {"hidden": 0.02, "default": 0.01},
    "grad_norm": 1.5,
}
ABOUT = {
    "experiment": "qkv",
    "qkv": None,
    "config": {"model": {"layers": 4}},
    "environment": {"threads": 2},
    "tokens_per_step": 4096,
}
RECORD = {
    "cell": "a_cell",
    "status": "finished",
    "train_seconds": 0.4,
    "val_loss": 4.5,
    "target_step": None,
    "overhead": {"value": 0.1, "n": 5},
    "curve": [{"step": 1}],
    "config": {"seed": 0},
}


@pytest.fixture
def runs(monkeypatch):
    """The W&B runs that a test starts, in order; W&B's own process ends with the test."""
    wandb = pytest.importorskip("wandb")
    started = []
    init = wandb.init

    def spy(**kwargs):
        started.append(init(**kwargs))
        return started[-1]

    monkeypatch.setattr(wandb, "init", spy)
    yield started
    wandb.teardown()


def start(block, folder, warn, cell="a_cell"):
    return tracking.start(block, ABOUT | {"cell": cell}, folder, warn)


def test_one_offline_run_per_cell(tmp_path, runs, capfd):
    warnings = []
    for cell in ("first", "second"):
        tracker = start(OFFLINE, tmp_path, warnings.append, cell)
        tracker.log(TRAIN_LINE)
        tracker.log({"step": 1, "seconds": 0.4, "val_loss": 5.0, "update_rms": {"hidden": 0.2}})
        tracker.finish(RECORD, failed=cell == "second")
    assert warnings == []
    assert [run.name for run in runs] == ["first", "second"]
    assert {run.group for run in runs} == {"qkv"}
    assert runs[0].config["model"] == {"layers": 4}
    assert runs[0].config["qkv_used"] == "none"
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert {file.stem.removeprefix("run-") for file in files} == {run.id for run in runs}
    content = b"".join(file.read_bytes() for file in files)
    for name in (b"lr/hidden", b"update_rms/hidden", b"val_loss", b"tokens", b"overhead/value"):
        assert name in content
    assert capfd.readouterr() == ("", "")


def test_an_evaluation_has_its_tokens_on_its_own_line(tmp_path, logged):
    tracker = start(OFFLINE, tmp_path, pytest.fail)
    tracker.log({"step": 3, "seconds": 0.4, "val_loss": 5.0})
    tracker.log(TRAIN_LINE)
    tracker.finish({})
    assert [(row["step"], row["tokens"]) for row in logged[0]["rows"]] == [(3, 12288), (1, 4096)]


@pytest.mark.parametrize("record, failed, noted", [(RECORD, 0, 1), (RECORD, 1, 0), ({}, 0, 0)])
def test_what_w_and_b_has_whole_is_noted(tmp_path, runs, record, failed, noted):
    start(OFFLINE, tmp_path, pytest.fail).finish(record, failed=bool(failed))
    found = tracking.logged(tmp_path, "muonbench", None)
    assert list(found) == [tracking.identity(RECORD)] * noted
    assert tracking.logged(tmp_path, "another", None) == {}
    assert tracking.logged(tmp_path, "muonbench", "a_team") == {}


def test_names_of_nested_values():
    flat = tracking._flat({"a": {"b": 1, "c": {"d": "x"}}, "e": None, "f": [1], "g": True})
    assert flat == {"a/b": 1, "a/c/d": "x", "g": True}


def test_none_does_not_import_wandb(tmp_path):
    code = (
        "import sys; from pathlib import Path; from bench.tracking import tracker as tracking\n"
        "t = tracking.start({'name': 'none'}, {'cell': 'c'}, Path('.'), warn=print)\n"
        "t.log({'step': 1}); t.finish({})\n"
        "print('wandb' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
    assert list(tmp_path.iterdir()) == []


def test_offline_sends_nothing(tmp_path):
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    code = (
        "from pathlib import Path; from bench.tracking import tracker as tracking\n"
        f"t = tracking.start({OFFLINE}, {ABOUT | {'cell': 'c'}}, Path('.'), warn=print)\n"
        "t.log({'step': 1}); t.finish({})\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment |= {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}"}
        environment |= {"PYTHONPATH": os.getcwd()}
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
        server.shutdown()
    assert (done.returncode, asked) == (0, [])
    assert list(tmp_path.glob("wandb/offline-run-*"))


def use(tracker):
    tracker.log(TRAIN_LINE)
    tracker.log(TRAIN_LINE)
    tracker.finish(RECORD)


def refuse(error):
    def raising(*args, **kwargs):
        raise error

    return raising


@pytest.mark.parametrize("error", [RuntimeError("no\nspace"), OSError(28, "No space"), KeyError()])
def test_a_failing_start_is_one_warning(tmp_path, runs, monkeypatch, error):
    monkeypatch.setattr("wandb.init", refuse(error))
    warnings = []
    use(start(OFFLINE, tmp_path, warnings.append))
    assert len(warnings) == 1
    assert warnings[0].startswith("W&B is off for this run: ")
    assert "\n" not in warnings[0]


@pytest.mark.parametrize("method", ["log", "finish"])
def test_a_failure_on_the_way_is_one_warning(tmp_path, runs, monkeypatch, method):
    warnings = []
    tracker = start(OFFLINE, tmp_path, warnings.append)
    monkeypatch.setattr(runs[0], method, refuse(ConnectionError("lost")))
    use(tracker)
    assert len(warnings) == 1
    assert "lost" in warnings[0]
    assert tracking.logged(tmp_path, "muonbench", None) == {}
    use(start(OFFLINE, tmp_path, warnings.append))
    assert len(warnings) == 1  # the next cell is tracked again
    assert len(runs) == 2


def test_a_missing_package_is_one_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    warnings = []
    use(start(OFFLINE, tmp_path, warnings.append))
    assert len(warnings) == 1


def test_a_folder_that_is_a_file_is_one_warning(tmp_path, runs):
    (tmp_path / "wandb").write_text("")
    warnings = []
    use(start(OFFLINE, tmp_path, warnings.append))
    assert len(warnings) == 1
    assert runs == []


def test_online_without_a_key_is_one_warning_and_no_question(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", refuse(AssertionError("asked")))
    warnings = []
    use(start({**OFFLINE, "mode": "online"}, tmp_path, warnings.append))
    (line,) = warnings
    assert "key" in line.lower()


def test_ctrl_c_passes_through(tmp_path, runs, monkeypatch):
    tracker = start(OFFLINE, tmp_path, pytest.fail)
    monkeypatch.setattr(runs[0], "log", refuse(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        tracker.log(TRAIN_LINE)
    tracker.finish(RECORD, failed=True)

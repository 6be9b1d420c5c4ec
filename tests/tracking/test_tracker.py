"""Trackers: one view per cell, silent, and never the reason why a run is lost."""

import csv
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from bench.tracking import tracker as tracking
from bench.tracking import weights_and_biases
from bench.tracking.weights_and_biases import identity
from tests.helpers.runs import stop_at

OFFLINE = {"name": "wandb", "project": "muonbench", "mode": "offline"}
ONLINE = OFFLINE | {"mode": "online"}
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
    "stage": "tune",
    "model": "gpt2_nano",
    "optimizer": "adamw",
    "qkv": None,
    "lr_scale": 0.5,
    "seed": 3,
    "config": {"model": {"layers": 4}},
    "environment": {"threads": 2},
    "tokens_per_step": 4096,
}
RECORD = ABOUT | {
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
    assert {run.name for run in runs} == {"gpt2_nano/adamw lr×0.5 s3"}
    assert [run.config["cell"] for run in runs] == ["first", "second"]
    assert {(run.group, run.job_type, run.tags) for run in runs} == {
        ("qkv", "tune", ("gpt2_nano", "adamw"))
    }
    assert runs[0].config["model"] == {"layers": 4}
    assert runs[0].config["qkv_used"] == "none"
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert {file.stem.removeprefix("run-") for file in files} == {run.id for run in runs}
    content = b"".join(file.read_bytes() for file in files)
    for name in (b"lr/hidden", b"update/rms/hidden", b"val/loss", b"tokens", b"optim/overhead"):
        assert name in content
    for name in (b"update_rms", b"val_loss", b"overhead/value"):  # no aliases
        assert b'"' + name not in content
    assert capfd.readouterr() == ("", "")


def test_an_evaluation_has_its_tokens_on_its_own_line(tmp_path, logged):
    tracker = start(OFFLINE, tmp_path, pytest.fail)
    tracker.log({"step": 3, "seconds": 0.4, "val_loss": 5.0})
    tracker.log(TRAIN_LINE)
    tracker.finish({})
    assert [(row["step"], row["tokens"]) for row in logged[0]["rows"]] == [(3, 12288), (1, 4096)]


@pytest.mark.parametrize("record, failed, noted", [(RECORD, 0, 1), (RECORD, 1, 0), ({}, 0, 0)])
def test_what_w_and_b_has_whole_is_noted(tmp_path, runs, record, failed, noted):
    tracker = start(OFFLINE, tmp_path, pytest.fail)
    tracker.finish(record, failed=bool(failed))
    found = weights_and_biases.logged(tmp_path, "muonbench", None)
    assert list(found) == [identity(RECORD)] * noted
    assert weights_and_biases.logged(tmp_path, "another", None) == {}
    assert weights_and_biases.logged(tmp_path, "muonbench", "a_team") == {}
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert tracker.where == f"W&B: {folder}"


class Service:
    """W&B online without a network: runs keep their lines, by their ids."""

    def __init__(self, monkeypatch):
        self.runs, self.asked = {}, []
        monkeypatch.setattr("wandb.init", self.init)
        monkeypatch.setattr("wandb.setup", lambda **options: None)

    def init(self, **options):
        self.asked.append(options)
        number = options["id"] or f"id{len(self.runs)}"
        rows = self.runs.setdefault(number, [])
        alerts = []
        return SimpleNamespace(
            **{"id": number, "name": options["name"], "project": options["project"]},
            **{"entity": "me", "url": f"https://w.b/{number}", "step": len(rows)},
            **{"log": rows.append, "finish": lambda **how: None, "summary": {}, "alerts": alerts},
            define_metric=lambda *name, **how: None,
            alert=lambda *words: alerts.append(words),
            log_artifact=lambda artifact: None,
            dir=options["dir"],
            settings=SimpleNamespace(mode="online", wandb_dir=options["dir"]),
        )


def test_online_a_run_that_goes_on_is_the_same_and_has_each_line_once(tmp_path, monkeypatch):
    service = Service(monkeypatch)
    lines = [TRAIN_LINE | {"step": step} for step in (1, 2, 3, 4)]
    stopped = start(ONLINE, tmp_path, pytest.fail)
    for line in lines[:3]:
        stopped.log(line)
    stopped.finish({}, failed=True)
    again = tracking.start(ONLINE, ABOUT | {"cell": "a_cell"}, tmp_path, pytest.fail, goes_on=True)
    for line in lines:
        again.log(line)
    again.finish(RECORD)
    assert [row["step"] for row in service.runs["id0"]] == [1, 2, 3, 4]
    assert [asked["resume"] for asked in service.asked] == [None, "allow"]
    assert again.where == "W&B: https://w.b/id0"
    start(ONLINE, tmp_path, pytest.fail).log(lines[0])  # rerun=true: it begins anew
    other = tracking.start(ONLINE, ABOUT | {"cell": "b"}, tmp_path, pytest.fail, goes_on=True)
    other.log(lines[0])
    assert sorted(service.runs) == ["id0", "id1", "id2"]


def test_online_a_run_that_diverges_raises_an_alert(tmp_path, monkeypatch):
    Service(monkeypatch)
    for status, alerts in (("finished", 0), ("diverged", 1)):
        tracker = start(ONLINE, tmp_path, pytest.fail)
        run = tracker._view.run
        tracker.finish(RECORD | {"status": status, "error": "training loss nan at step 3"})
        assert len(run.alerts) == alerts
    assert run.alerts[0][1] == "training loss nan at step 3"


def table(tmp_path):
    """The rows of the one CSV file, each with what is in it."""
    (file,) = (tmp_path / "csv").glob("*.csv")
    with file.open(newline="") as lines:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(lines)]


def test_a_table_has_a_row_a_step_with_its_evaluation_and_the_end_in_the_last(tmp_path):
    tracker = start({"name": "csv"}, tmp_path, pytest.fail)
    for step in (1, 2, 3):
        tracker.log(TRAIN_LINE | {"step": step, "train_loss": 9.0 - step})
        if step == 2:
            tracker.log({"step": 2, "seconds": 0.8, "val_loss": 5.0, "update_rms": {"hidden": 0.2}})
    tracker.finish(RECORD | {"test_loss": 4.75})
    rows = table(tmp_path)
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row.get("val/loss") for row in rows] == [None, "5.0", "4.5"]
    assert [float(row["train/loss"]) for row in rows] == [8, 7, 6]
    assert (rows[1]["update/rms/hidden"], rows[2]["test/loss"]) == ("0.2", "4.75")
    assert tracker.where == f"CSV: {tmp_path}/csv/a_cell.csv"
    start({"name": "csv"}, tmp_path, pytest.fail).log(TRAIN_LINE)
    assert table(tmp_path) == []  # begun anew


def test_a_run_that_was_stopped_ends_with_a_whole_view_and_says_where(train, tmp_path, monkeypatch):
    stop_at(monkeypatch, 5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train("tracker=csv")
    assert len(table(tmp_path)) == 5
    _, one, said = train("tracker=csv")
    assert said[-1] == f"CSV: {tmp_path}/csv/{one['cell']}.csv"
    rows = table(tmp_path)
    trained = [line["train_loss"] for line in one["curve"] if "train_loss" in line]
    assert [float(row["train/loss"]) for row in rows] == trained
    assert float(rows[-1]["test/loss"]) == one["test_loss"]


def test_tensorboard_reads_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for attempt in (1, 2):  # of which the second is complete by itself
        tracker = start({"name": "tensorboard"}, tmp_path, pytest.fail)
        for step in (1, 2):
            tracker.log(TRAIN_LINE | {"step": step, "train_loss": 9.0 - step * attempt})
        tracker.log({"step": 2, "seconds": 0.8, "val_loss": 5.0})
        tracker.finish(RECORD | {"steps": 2, "test_loss": 4.75})
    read = EventAccumulator(str(tmp_path / "tensorboard" / "a_cell"))
    read.Reload()
    points = {name: [(p.step, p.value) for p in read.Scalars(name)] for name in read.scalars.Keys()}
    assert points["train/loss"] == [(1, 7.0), (2, 5.0)]
    assert points["val/loss"] == [(2, 5.0)]  # the record's is no second point
    assert points["test/loss"] == [(2, 4.75)]
    assert points["lr/hidden"] == [(1, pytest.approx(0.02)), (2, pytest.approx(0.02))]


@pytest.mark.parametrize("name, label", [("csv", "CSV"), ("tensorboard", "TensorBoard")])
def test_trouble_with_a_file_is_one_warning(tmp_path, name, label):
    if name == "tensorboard":
        pytest.importorskip("tensorboard")
    (tmp_path / name).write_text("a file where a folder is wanted")
    warnings = []
    use(start({"name": name}, tmp_path, warnings.append))
    (said,) = warnings
    assert said.startswith(f"{label} is off for this run: ") and "\n" not in said


def test_without_tensorboard_it_says_how_to_get_it(tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    warnings = []
    use(start({"name": "tensorboard"}, tmp_path, warnings.append))
    said = "the package tensorboard is not installed: pip install -e '.[tensorboard]'"
    assert warnings == [f"TensorBoard is off for this run: {said}"]


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
    assert weights_and_biases.logged(tmp_path, "muonbench", None) == {}
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

"""Upload of finished records: the run that W&B would have had live, once, and no broken one."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from bench.records import cell
from bench.tracking import tracker as tracking
from bench.training import run
from tests.helpers.commands import ROOT, TINY, settle

RECORDS = sorted((ROOT / "results" / "records").glob("*/*.json"))


@pytest.fixture
def upload(monkeypatch, capsys):
    """Call the script in this process; (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["wandb_upload.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "scripts" / "wandb_upload.py"), run_name="__main__")
        return end.value.code, *capsys.readouterr()

    return call


def publish(folder: Path, *files: Path) -> Path:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    return folder


def test_an_upload_is_the_run_that_w_and_b_would_have_had_live(tmp_path, logged, upload, capsys):
    settings = settle(*TINY, "optimizer=adamw", f"results_dir={tmp_path}/live")
    name = cell.name(settings)
    run.run(settings, name, print)
    capsys.readouterr()
    assert upload(f"results_dir={tmp_path / 'live'}") == (
        0,
        "1 logged before (offline)\n"
        f"send what is offline: wandb sync {tmp_path}/live/wandb/offline-run-*\n",
        "",
    )
    folder = shutil.copytree(tmp_path / "live" / "runs" / name, tmp_path / "quiet" / "runs" / name)
    status, out, err = upload(f"results_dir={tmp_path / 'quiet'}")
    assert (status, err) == (0, "") and out.startswith(f"{name}: logged\n1 logged\n")
    live, later = logged
    assert len(live["rows"]) == 8 and live["summary"]["run/status"] == "finished"
    assert live["artifact"]["record.json"]["cell"] == name
    assert live == later

    metrics = folder / "metrics.jsonl"  # a part of them is no longer the record's run
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))
    upload(f"results_dir={tmp_path / 'quiet'}", "--project", "another")
    assert logged[2]["rows"] == live["rows"]


def test_a_second_call_logs_nothing_and_a_record_made_anew_is_logged(tmp_path, logged, upload):
    records = publish(tmp_path / "records", *RECORDS[:2])
    call = (f"results_dir={tmp_path}", "--records", records)
    assert "2 logged\n" in upload(*call)[1]
    assert "2 logged before (offline)\n" in upload(*call)[1]
    anew = json.loads(RECORDS[0].read_text()) | {"train_seconds": 1.5}
    (records / RECORDS[0].name).write_text(json.dumps(anew))
    assert "1 logged, 1 logged before (offline)\n" in upload(*call)[1]
    assert "2 logged\n" in upload(*call, "--project", "another")[1]
    assert "2 logged\n" in upload(*call, "--entity", "a_team")[1]
    assert len(logged) == 7


def test_without_its_metrics_a_record_gives_its_curve(tmp_path, logged, upload):
    one = json.loads(RECORDS[0].read_text())
    upload(f"results_dir={tmp_path}", "--records", publish(tmp_path / "records", RECORDS[0]))
    (found,) = logged
    assert len(found["rows"]) == len(one["curve"])
    assert found["group"] == one["experiment"]
    assert all(row["tokens"] == row["step"] * one["tokens_per_step"] for row in found["rows"])


def test_the_broken_are_named_and_left_out(tmp_path, logged, upload):
    records = publish(tmp_path / "records", RECORDS[0])
    whole = json.loads(RECORDS[1].read_text())
    (records / "cut.json").write_text(RECORDS[1].read_text()[:1000])
    (records / "foreign.json").write_text("[1]")
    (records / "older.json").write_text(json.dumps(whole | {"schema": 0}))
    (records / "poorer.json").write_text(json.dumps(whole | {"config": None}))
    (records / "torn.json").write_text(json.dumps(whole | {"curve": [None]}))
    (records / "unfinished.json").write_text(json.dumps(whole | {"status": "failed"}))
    status, out, err = upload(f"results_dir={tmp_path}", "--records", records)
    assert status == 0 and "6 left out, 1 logged\n" in out and len(logged) == 1
    named = err.splitlines()
    assert len(named) == 6 and all("left out" in text for text in named)
    for name in ("cut", "foreign", "older", "poorer", "torn", "unfinished"):
        assert sum(f"{name}.json" in text for text in named) == 1


def test_trouble_stops_and_the_same_command_goes_on(tmp_path, logged, upload, monkeypatch):
    call = (f"results_dir={tmp_path}", "--records", publish(tmp_path / "records", *RECORDS[:3]))
    finish = tracking.Tracker.finish

    def full_after_one(tracker, record, failed=False):
        if logged[1:]:
            monkeypatch.setattr(tracker._view.run, "finish", lambda **how: 1 / 0)
        finish(tracker, record)

    with monkeypatch.context() as patch:
        patch.setattr(tracking.Tracker, "finish", full_after_one)
        status, out, err = upload(*call)
    assert status == 1 and out.count("logged") == 1
    second = json.loads(RECORDS[1].read_text())["cell"]
    assert err == f"{second}: W&B is off for this run: division by zero\n"
    assert "2 logged, 1 logged before (offline)\n" in upload(*call)[1]


def test_an_empty_folder_is_one_line(tmp_path, upload):
    status, out, err = upload(f"results_dir={tmp_path}")
    assert (status, out) == (1, "") and err == f"{tmp_path}/runs: no record there (*/record.json)\n"

"""Whole studies as a person runs them: trained once, one after the other, and reported."""

import json

import pytest

from bench.records import record
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.studies import request
from bench.studies.campaign import Campaign
from tests.helpers.commands import command


@pytest.mark.long
def test_fine_tuning_follows_pretraining(tmp_path):
    sizes = ["model.layers=1", "model.width=32", "model.heads=2", "train.batch_size=2"]
    sizes += ["train.sequence_length=32", "train.steps=4", "train.eval_every=4"]
    sizes += ["schedule.warmup_steps=1", "data.final_eval_sequences=8", "tracker=none"]
    common = [*sizes, "study.grid=[1]", f"results_dir={tmp_path}"]
    early = command("experiment=finetune", *common)
    assert early.returncode == 1 and "experiment=pretrain first" in early.stderr.splitlines()[-1]
    seeds = ["study.tune_seeds=[200]", "study.final_seeds=[0,100]"]
    first = command("experiment=pretrain", *common, *seeds)
    assert first.returncode == 0, first.stderr
    for name, runs in (("finetune", 8), ("lora", 6)):
        then = command(f"experiment={name}", *common, "study.final_seeds=[0]")
        assert then.returncode == 0, then.stderr
        found = [
            one
            for file in (tmp_path / "runs").glob("*/record.json")
            if (one := record.read(file.parent))["experiment"] == name
        ]
        assert len(found) == runs and all(one["status"] == "finished" for one in found)
        assert all(abs(one["forgotten"]) > 0 for one in found)


@pytest.mark.more
def test_a_study_is_trained_once_and_reported(tmp_path):
    words = ["experiment=smoke", "condition=text", "tracker=none", f"results_dir={tmp_path}"]
    with pytest.raises(UserError, match="stage=tune"):
        Campaign(request.read([*words, "arm=torch_muon"])).best(asked=True)
    first = command(*words, "stage=tune")
    assert first.returncode == 0, first.stderr
    tuned = sorted((tmp_path / "runs").glob("*/record.json"))
    assert len(tuned) == 6
    times = {f: f.stat().st_mtime for f in tuned}
    assert "?" in first.stderr and "6 runs are left" in first.stderr

    whole = command(*words)
    assert whole.returncode == 0, whole.stderr
    assert "6 runs are left" in whole.stderr
    files = sorted((tmp_path / "runs").glob("*/record.json"))
    assert len(files) == 12
    assert {f: f.stat().st_mtime for f in tuned} == times
    parts = [record.parts(f.parent) for f in files]
    assert all(len(p) == 1 and p[0]["experiment"] == "smoke" for p in parts)
    commands = {record.read(f.parent)["command"] for f in files}
    assert all("-m experiment=smoke stage=" in c and "arm=" in c for c in commands)

    again = command(*words)
    assert again.returncode == 0 and "0 runs are left" in again.stderr
    assert "validation loss by optimizer.lr_scale" in again.stdout

    report = command(f"results_dir={tmp_path}", entry="report")
    assert report.returncode == 0, report.stderr
    assert "12 runs" in report.stdout
    verdicts = {v["claim"]: v for v in json.loads((tmp_path / "verdicts.json").read_text())}
    assert verdicts.keys() == {file.stem for file in (CONF / "claim").rglob("*.yaml")}
    for verdict in verdicts.values():
        assert verdict["verdict"] in ("confirmed", "refuted", "depends", "not enough evidence")
        assert verdict["verdict"] != "not enough evidence" or verdict["condition"]
    text = (tmp_path / "README.md").read_text()
    assert "### smoke, text" in text and "| hybrid |" in text and "- `optimizers`: " in text
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert (tmp_path / "pictures" / "smoke-text-loss.svg").exists()
    assert len((tmp_path / "records.csv").read_text().splitlines()) == 13
    checked = command(f"results_dir={tmp_path}", "--check", entry="report")
    assert checked.returncode == 0, checked.stderr

"""The dashboard asks for nothing that no run logs, and its dry run for no account."""

import json
import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench.measuring import utilization
from bench.records import cell
from bench.training import run
from tests.helpers.commands import ROOT, TINY, settle

pytest.importorskip("wandb_workspaces")
from bench.tracking import dashboard

SCRIPT = str(ROOT / "scripts" / "wandb_dashboard.py")


def panels_and_runs(spec: dict):
    """The panels and the run sets of a workspace's or a report's specification."""
    if "section" in spec:
        section = spec["section"]
        sections = section["panelBankConfig"]["sections"]
        return [panel for one in sections for panel in one["panels"]], section["runSets"]
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    panels = [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]
    return panels, [runs for grid in grids for runs in grid["runSets"]]


def names(spec: dict) -> tuple[set, set]:
    """Addresses such as `summary:val_loss`, and pairs (x, y) of line plots."""
    panels, runs = panels_and_runs(spec)
    single, pairs = set(), set()
    for panel in panels:
        kind, chart = panel["viewType"], panel["config"]
        if kind == "Run History Line Plot":
            pairs |= {(chart["xAxis"], y) for y in chart["metrics"]}
        elif kind == "Bar Chart":
            single |= {f"summary:{name}" for name in chart["metrics"]}
        elif kind == "Scatter Plot":
            single |= {chart["xAxis"], chart["yAxis"]}
        else:
            assert kind == "Parallel Coordinates Plot"
            single |= {column["accessor"] for column in chart["columns"]}
    for one in runs:
        keys = one["grouping"] + [order["key"] for order in one["sort"]["keys"]]
        single |= {f"{key['section']}:{key['name']}" for key in keys}
        single |= set(one["runFeed"]["columnOrder"]) - {"run:displayName"}
    return single, pairs


def specifications() -> list[dict]:
    workspace, report = dashboard.workspace("me", "mine"), dashboard.report("me", "mine")
    return [
        dashboard.specification(workspace)["spec"],
        json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)),
    ]


def has(run: dict, address: str) -> bool:
    """Whether a run logged what an address names."""
    section, name = address.split(":", 1)
    if section == "summary":
        return name in run["summary"]
    assert section == "config"
    (first, value, *rest), found = name.split("."), run["config"]
    assert value == "value"
    for key in (first, *rest):
        if key not in found:
            return False
        found = found[key]
    return True


def missing(runs: list[dict]) -> set:
    """What the dashboard names and not every run logs; of line plots, what no run logs."""
    absent = set()
    for single, pairs in map(names, specifications()):
        absent |= {name for name in single if not all(has(run, name) for run in runs)}
        rows = [row for run in runs for row in run["rows"]]
        absent |= {pair for pair in pairs if not any(set(pair) <= set(row) for row in rows)}
    return absent


def train(results, *overrides):
    settings = settle(*TINY, f"results_dir={results}", *overrides)
    assert run.run(settings, cell.name(settings), lambda text: None)["how"] == "finished"


@pytest.mark.more
def test_every_name_is_what_runs_log(tmp_path, logged, monkeypatch):
    monkeypatch.setattr(utilization, "seconds_of_peak", lambda *run: 0.0)  # none is too short
    monkeypatch.setattr(utilization.flops, "SECONDS", 0.0)
    train(tmp_path)
    calm = ("optimizer.lr_scale=0.1", "train.batch_size=16")  # none diverges in six steps
    train(tmp_path, "model=vit_nano", "optimizer=adamw", *calm)
    assert missing(logged) == set()
    for single, pairs in map(names, specifications()):
        axes = ("step", "seconds", "tokens", "images")
        assert {(axis, loss) for axis in axes for loss in ("train/loss", "val/loss")} <= pairs
        shown = {"lr/hidden", "grad/norm/hidden", "update/weight_ratio/hidden", "memory/peak_gib"}
        assert {("step", name) for name in (*shown, "optim/share", "perf/tflops")} <= pairs
        assert len(single) >= 15
    assert [one["config"]["qkv_used"] for one in logged] == ["split", "none"]
    monkeypatch.setattr(dashboard, "PEAK", "peak_memory")
    monkeypatch.setattr(dashboard, "SWEEP", ("optimizer.rate",))
    monkeypatch.setattr(dashboard, "LOSSES", {"loss": "loss"})
    wrong = {"summary:peak_memory", "config:optimizer.value.rate", ("step", "peak_memory")}
    assert missing(logged) == wrong | {(axis, "loss") for axis in axes}


def test_groups_keep_apart_what_does_not_compare():
    workspace, report = specifications()
    arms = ["model.value.name", "optimizer.value.name", "qkv_used.value"]
    arms += ["optimizer.value.lr_scale"]
    _, (runs,) = panels_and_runs(workspace)
    assert [key["name"] for key in runs["grouping"]] == arms
    _, all_runs = panels_and_runs(report)
    assert [[key["name"] for key in one["grouping"]] for one in all_runs] == [arms] * 4 + [[]] * 2


def test_the_charts_of_a_report_do_not_overlap():
    _, report = specifications()
    for block in report["blocks"]:
        if block["type"] == "panel-grid":
            spots = [p["layout"] for p in block["metadata"]["panelBankSectionConfig"]["panels"]]
            assert len({(spot["x"], spot["y"]) for spot in spots}) == len(spots)
            assert all(spot["x"] + spot["w"] <= 24 for spot in spots)


WATCH = """
import os, runpy, sys
seen = []
def hook(event, arguments):
    reads_key = event == "open" and os.path.basename(str(arguments[0])) in (".netrc", "_netrc")
    if event.startswith("socket.") or event == "subprocess.Popen" or reads_key:
        seen.append((event, arguments))
class Watched(type(os.environ)):
    def __getitem__(self, key):
        if "API_KEY" in str(key):
            seen.append(key)
        return super().__getitem__(key)
os.environ.__class__ = Watched
sys.addaudithook(hook)
sys.argv = ["wandb_dashboard.py", "me", "mine", "--dry-run"]
try:
    runpy.run_path("scripts/wandb_dashboard.py", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
assert not seen, seen
"""


def test_a_dry_run_needs_no_account_no_key_and_no_network():
    done = subprocess.run(
        [sys.executable, "-c", WATCH],
        cwd=ROOT,
        env=os.environ | {"WANDB_API_KEY": "not to be read"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""
    plan = json.loads(done.stdout)
    assert (plan["workspace"]["entity"], plan["workspace"]["project"]) == ("me", "mine")
    sections = plan["report"]["sections"]
    titles = ["Loss", "Optimizer", "Time", "Memory", "Sweep", "Runs"]
    assert [one["title"] for one in sections] == titles
    assert all(one["text"] for one in sections) and len(sections[0]["charts"]) == 11


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["wandb_dashboard.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(SCRIPT, run_name="__main__")
    return end.value.code, *capsys.readouterr()


@pytest.fixture
def account(monkeypatch):
    """An account whose one project is `mine`; what is saved there."""
    saved = []

    def save(thing):
        saved.append(thing)
        return SimpleNamespace(url=f"https://w.b/{len(saved)}")

    projects = {"me": [SimpleNamespace(name="mine")]}
    monkeypatch.setattr("wandb.Api", lambda: SimpleNamespace(projects=projects.__getitem__))
    monkeypatch.setattr(dashboard.ws.Workspace, "save", save)
    monkeypatch.setattr(dashboard.wr.Report, "save", save)
    return saved


def test_it_makes_one_workspace_and_one_report(monkeypatch, capsys, account):
    status, out, err = call(monkeypatch, capsys, "me", "mine")
    assert (status, err) == (0, "")
    assert out == "workspace: https://w.b/1\nreport: https://w.b/2\n"
    assert [type(one).__name__ for one in account] == ["Workspace", "Report"]


def test_a_misspelt_project_is_named_and_not_made(monkeypatch, capsys, account):
    status, _, err = call(monkeypatch, capsys, "me", "nime")
    assert (status, account) == (1, [])
    assert err == "PROJECT=nime: me has no such project; it has mine\n"


def test_trouble_with_the_service_is_two_lines(monkeypatch, capsys, account):
    def down():
        raise ConnectionError("no way\nto it")

    monkeypatch.setattr("wandb.Api", down)
    status, _, err = call(monkeypatch, capsys, "me", "mine")
    assert (status, account) == (1, [])
    assert err.startswith("W&B did not make the dashboard: no way to it\n") and err.count("\n") == 2


def test_without_a_login_it_says_which_command(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_API_KEY"}
    homeless = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "PYTHONPATH": str(ROOT)}
    homeless["WANDB_CONFIG_DIR"] = str(tmp_path / "config")
    done = subprocess.run(
        [sys.executable, SCRIPT, "me", "mine"],
        cwd=tmp_path,
        env=environment | homeless,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "not logged in to W&B: .venv/bin/wandb login\n"


def test_without_the_package_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.delitem(sys.modules, "bench.tracking.dashboard")
    monkeypatch.delattr("bench.tracking.dashboard")
    status, _, _ = call(monkeypatch, capsys, "me", "mine", "--dry-run")
    assert status == "wandb-workspaces is not installed: .venv/bin/pip install -e '.[dashboard]'"

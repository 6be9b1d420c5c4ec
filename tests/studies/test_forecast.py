"""What a study will cost: runs, hours and disk, said before the first run and with each."""

import pytest

from bench.display import terminal
from bench.measuring import load
from bench.records import archive
from bench.studies import comparison, forecast, tables
from bench.studies.forecast import Cost, Forecast
from tests.helpers import fake_results

COSTS = {"a": Cost(60.0, 1e6, 5e8), "b": Cost(120.0, 2e6, 8e8)}
LEFT = {
    ("tune", "x", "a"): 3,
    ("tune", "x", "b"): 3,
    ("final", "x", "b"): 2,
    ("final", "x", "a"): 0,
}


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(forecast, "cost", lambda arm: COSTS[arm])
    monkeypatch.setattr(load, "average", lambda: 0.5)
    return Forecast(LEFT, lambda stage, condition, arm: arm)


def test_the_plan_tells_runs_hours_and_disk(clock):
    assert clock.summary() == [
        "plan: 8 runs are left, about 13 min on this machine",
        "disk: they leave 13MB, and take 800MB more on their way",
    ]


def test_a_plan_that_was_timed_beside_other_work_says_so(monkeypatch):
    monkeypatch.setattr(forecast, "cost", lambda arm: COSTS[arm])
    monkeypatch.setattr(load, "average", lambda: 2.04)
    busy = Forecast(LEFT, lambda stage, condition, arm: arm)
    assert busy.summary()[0] == (
        "plan: 8 runs are left, about 13 min on this machine, "
        "or much less: it was timed beside other work (load 2.0)"
    )


def test_where_nothing_is_left_nothing_is_timed():
    done = Forecast({("tune", "x", "a"): 0}, pytest.fail)
    assert done.summary() == ["plan: 0 runs are left, about 0 s on this machine"]


def test_what_is_left_falls_with_each_run_that_is_trained(clock):
    assert clock.after(("tune", "x", "a"), [True, False, True]) == [720.0, 720.0, 660.0]
    assert clock.after(("final", "x", "b"), [True, True]) == [540.0, 420.0]


def test_each_arm_is_timed_once_and_listed(clock, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert list(clock.costs) == [("x", "a"), ("x", "b")]
    terminal.show(tables.plan(clock))
    _, a, b = capsys.readouterr().out.splitlines()
    assert a.split() == ["x", "a", "3", "tune", "1", "min", "3", "min"]
    assert b.split() == ["x", "b", "3", "tune", "+", "2", "final", "2", "min", "10", "min"]


def test_the_table_of_arms_has_differences_with_their_intervals_in_80_columns(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "80")
    declared = fake_results.fill(tmp_path, "optimizers", ["language"])
    terminal.show(tables.arms(comparison.compare(archive.read(tmp_path), declared, "language")))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 1 + len(declared.arms)
    rows = {line.split()[0]: line for line in lines[1:]}
    assert "baseline" in rows["adamw"] and "±" in rows["hybrid"] and " 5 " in rows["hybrid"]

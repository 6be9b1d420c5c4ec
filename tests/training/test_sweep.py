"""A sweep as it is seen: what is planned, one line a run, how long it takes."""

import time

import pytest
from omegaconf import OmegaConf

from bench.training import launching, tables, telling
from bench.training.launching import Launches, Outcomes, Part, short_name
from tests.helpers.commands import TINY, command

RECORD = {"status": "finished", "val_loss": 4.93412, "test_loss": 4.95123, "train_loss": 4.88}
RECORD |= {"train_seconds": 31.2}
DONE = {"how": "finished", "error": None, "record": RECORD}


def test_a_run_is_a_line_with_its_losses_and_what_is_left():
    said = tables.line("2/6", "hybrid s0", DONE, "  2 min left", 80)
    assert said == ("2/6 hybrid s0  val 4.9341  test 4.9512  train 4.8800    31 s  2 min left")


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    "outcome",
    [
        DONE,
        DONE | {"how": "skipped"},
        {"how": "failed", "error": "a\nb: " + "why " * 50, "record": None},
        {"how": "diverged", "error": "the loss", "record": RECORD | {"val_loss": None}},
        {"how": "running", "error": None, "record": None},
    ],
)
def test_a_line_fits_whatever_the_run_is_called(width, outcome):
    for name in ("", "tune language torch_muon lr×0.125 s100", "x" * 200):
        line = tables.line("12/84", name, outcome, "  12 min left", width)
        assert len(line) <= width and "\n" not in line and line.startswith("12/84")
        assert outcome["how"] in ("finished", "skipped") or outcome["how"] in line or name[99:]


def test_a_run_is_called_by_what_tells_it_from_the_others():
    words = ["optimizer=hybrid", "qkv=per_head", "optimizer.lr_scale=2", "seed=3"]
    assert short_name([*words, "+train.batch_size=8"]) == "hybrid per_head lr×2 s3 batch_size=8"


class Launcher:
    def launch(self, job_overrides, initial_job_idx):
        return []


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """What is said of a sweep of these jobs, and what is noted for their lines."""
    monkeypatch.setattr(launching, "get_class", lambda target: Launcher)

    def plan(typed, jobs, part=None, sweeper=None):
        hydra = {"launcher": {"_target_": "a"}, "overrides": {"task": typed}}
        config = OmegaConf.create({"hydra": hydra | {"sweeper": sweeper or {}}})
        said: list[str] = []
        launches = Launches(config, Outcomes(tmp_path), lambda: False, part, said.append)
        try:
            Launcher().launch(jobs, initial_job_idx=0)
        finally:
            launches.end()
        return said, Outcomes(tmp_path).planned()

    return plan


def test_the_plan_comes_first_and_names_what_is_swept(planned):
    typed = ["optimizer=adamw,hybrid", "seed=0,1", "tracker=none"]
    jobs = [
        [f"optimizer={o}", f"seed={s}", "tracker=none"] for o in ("adamw", "hybrid") for s in (0, 1)
    ]
    said, noted = planned(typed, jobs)
    assert said == ["plan: 4 runs (optimizer=adamw,hybrid seed=0,1)"]
    assert noted["total"] == 4 and noted["names"]["2"] == "hybrid s0"


def test_what_hydra_spells_otherwise_or_was_typed_twice_is_not_swept(planned):
    typed = ["train.steps=6", "train.compile=true", "train.steps=10", "seed=range(2)"]
    jobs = [["train.steps=10", "train.compile=True", f"seed={s}"] for s in (0, 1)]
    said, noted = planned(typed, jobs)
    assert said == ["plan: 2 runs (seed=range(2))"]
    assert noted["names"] == {"0": "s0", "1": "s1"}


def test_a_search_has_as_many_runs_as_trials(planned):
    said, noted = planned(["seed=0"], [["seed=0", "train.steps=5"]], sweeper={"n_trials": 20})
    assert said == ["plan: 20 runs"] and noted["total"] == 20


def test_the_sweep_of_a_study_says_nothing_as_the_study_has(planned):
    part = Part(7, 84, "tune language hybrid", [60.0, 50.0])
    said, noted = planned(["seed=0,1"], [["seed=0"], ["seed=1"]], part)
    assert said == [] and (noted["before"], noted["total"]) == (7, 84)
    assert telling.seconds_left(noted, 1, []) == 50.0


def test_what_is_left_follows_from_the_runs_that_were_trained():
    plan = {"left": [], "total": 6, "began": time.time() - 60}
    ended = [{"how": "finished"}, {"how": "skipped"}, {"how": "diverged"}]
    assert telling.seconds_left(plan, 2, ended) == pytest.approx(90, abs=1)
    assert telling.seconds_left(plan, 0, [{"how": "skipped"}]) is None
    assert telling.seconds_left(plan, 5, [{"how": "finished"}] * 6) == 0


def test_of_many_processes_only_the_leading_one_tells_of_a_run(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    telling.end({"how": "finished", "error": None, "record": {"val_loss": 4.0}})
    assert capsys.readouterr() == ("", "")


def test_a_sweep_on_the_screen_is_a_plan_a_line_a_run_and_a_table(tmp_path):
    words = ["-m", "optimizer=adamw,hybrid", "seed=0,1", *TINY, "tracker=none"]
    done = command(*words, f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[0] == "plan: 4 runs (optimizer=adamw,hybrid seed=0,1)"
    ends = [line for line in said if line[1:3] == "/4"]
    assert [line[:3] for line in ends] == ["1/4", "2/4", "3/4", "4/4"]
    assert "adamw s0" in ends[0] and "val " in ends[0] and "train " in ends[0]
    others = [line for line in said if line not in ends and not line.startswith("tokenizing")]
    assert others[1:-1] == ["loading torch"] and others[-1].startswith("about ")
    assert others[-1].endswith(" for 4 runs, by the first steps")
    shown = done.stdout.splitlines()
    assert shown[-1] == "4 finished" and max(map(len, [*said, *shown])) <= 80
    row = next(line for line in shown if line.startswith("hybrid"))
    assert "±" in row and any(line.startswith("adamw") and "baseline" in line for line in shown)
    assert len(shown) <= 6, shown

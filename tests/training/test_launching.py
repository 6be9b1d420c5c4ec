"""Jobs of a sweep in processes that are killed, on disks that are full."""

from concurrent.futures.process import BrokenProcessPool

import pytest
from omegaconf import OmegaConf

from bench.training import launching, sweep
from bench.training.launching import Launches, Outcomes


class Launcher:
    """A pool that hands out two jobs at a time, and breaks whenever the `fatal` one is begun."""

    fatal: tuple[int, ...] = ()
    outcomes: Outcomes
    done: list[int]
    returns: list

    def launch(self, job_overrides, initial_job_idx):
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        for at in range(0, len(numbers), 2):
            for number in numbers[at : at + 2]:
                self.outcomes.begin(number)
            if set(self.fatal) & set(numbers[at : at + 2]):
                raise BrokenProcessPool("killed")
            for number, words in zip(numbers[at : at + 2], job_overrides[at : at + 2], strict=True):
                self.done.append(number)
                outcome = {"cell": words[0], "how": "finished", "error": None, "record": None}
                outcome["loss"] = 0.5 + number
                self.outcomes.end(number, outcome)
        return []


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """The outcomes of six jobs."""

    def go(stopped=lambda: False, **attributes):
        outcomes = Outcomes(tmp_path)
        for name, value in {"outcomes": outcomes, "done": [], **attributes}.items():
            monkeypatch.setattr(Launcher, name, value, raising=False)
        monkeypatch.setattr(launching, "get_class", lambda target: Launcher)
        config = OmegaConf.create({"hydra": {"launcher": {"_target_": "a.Launcher"}}})
        launches = Launches(config, outcomes, stopped)
        try:
            jobs = [[f"seed={i}"] for i in range(6)]
            Launcher.returns = Launcher().launch(jobs, initial_job_idx=0)
        finally:
            launches.end()
        return [(one["cell"], one["how"]) for one in launches.ended({})]

    return go


@pytest.mark.parametrize("fatal", [(), (0,), (2,), (3,), (5,), (1, 4), (0, 1, 2, 3, 4, 5)])
def test_a_killed_process_ends_only_its_own_job(launched, fatal):
    ends = launched(fatal=fatal)
    assert ends == [(f"seed={i}", "failed" if i in fatal else "finished") for i in range(6)]
    assert sorted(Launcher.done) == [i for i in range(6) if i not in fatal]  # none twice


def test_a_search_hears_of_every_job_though_a_process_was_killed(launched):
    launched(fatal=(2,))
    assert [one.return_value for one in Launcher.returns] == [0.5, 1.5, None, 3.5, 4.5, 5.5]


def test_after_ctrl_c_a_search_launches_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(Launcher, "launch", lambda *jobs, initial_job_idx: [])
    monkeypatch.setattr(launching, "get_class", lambda target: Launcher)
    config = OmegaConf.create({"hydra": {"launcher": {"_target_": "a.Launcher"}}})
    Launches(config, Outcomes(tmp_path), lambda: True)
    with pytest.raises(KeyboardInterrupt):
        Launcher().launch([["seed=5"]], initial_job_idx=4)


def test_after_ctrl_c_nothing_is_launched_again(launched):
    with pytest.raises(KeyboardInterrupt):
        launched(stopped=lambda: True, fatal=(2,))
    assert Launcher.done == [0, 1]


def test_another_launchers_trouble_is_the_error_of_what_left_no_outcome(launched):
    def fail(self, job_overrides, initial_job_idx):
        self.outcomes.end(0, {"cell": "a", "how": "finished", "error": None})
        raise RuntimeError("Job 7\nended")

    ends = launched(launch=fail)
    assert ends == [("a", "finished"), *((f"seed={i}", "failed") for i in range(1, 6))]


@pytest.mark.parametrize("text", ["", '{"cell": "a"', "[]", "[" * 100_000, '{"how": "finished"}'])
def test_an_outcome_that_cannot_be_read_counts_as_failed(launched, text):
    original = Outcomes.end

    def cut(self, number, outcome):
        original(self, number, outcome)
        if number == 3:
            (self.folder / "000003.json").write_text(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outcomes, "end", cut)
        ends = launched()
    assert [how for _, how in ends].count("failed") == 1 and ends[3] == ("seed=3", "failed")


def test_jobs_of_this_process_are_remembered_where_the_disk_is_full(tmp_path):
    remembered = {"cell": "x", "how": "finished", "error": None, "record": None}
    outcomes = Outcomes(tmp_path)
    config = OmegaConf.create({"hydra": {"launcher": {"_target_": "a.Launcher"}}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "get_class", lambda target: Launcher)
        launches = Launches(config, outcomes, lambda: False)
        launches.end()
    launches.jobs = {0: "a", 1: "b"}
    found, lost = launches.ended({0: remembered})
    assert found is remembered and lost["error"] == launching.SILENT


def test_numbers_as_stretches():
    assert launching.stretches([1, 2, 5, 7, 8]) == [range(1, 3), range(5, 6), range(7, 9)]


def test_a_sweep_on_a_full_disk_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep.OmegaConf, "save", full)
    config = OmegaConf.create(
        {
            "results_dir": str(tmp_path),
            "hydra": {"launcher": {"_target_": "a.b"}, "sweep": {"dir": f"{tmp_path}/s"}},
        }
    )
    monkeypatch.setattr(sweep, "began_here", False)
    with pytest.raises(SystemExit) as end:
        sweep.Failures().on_multirun_start(config)
    line = f"error: results_dir={tmp_path}: No space left on device: {tmp_path}/s"
    assert end.value.code == 1 and capsys.readouterr().err == line + "\n"

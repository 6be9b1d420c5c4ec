"""What a sweep ends with: groups over seeds against AdamW."""

import pytest
from omegaconf import OmegaConf

from bench.studies import grouped
from bench.training import telling
from bench.training.launching import Part
from tests.helpers import fake_results

LOSSES = {"adamw": (4.0, 4.2, 4.1), "hybrid": (3.7, 3.8, 3.9)}


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")

    def show(optimizers=tuple(LOSSES), tracker="none", more=()):
        found = list(more)
        for optimizer in optimizers:
            for seed, loss in enumerate(LOSSES[optimizer]):
                one = fake_results.own(tmp_path, optimizer, seed, loss)
                found.append({"cell": one["cell"], "how": "finished", "error": None})
        config = OmegaConf.create({"results_dir": str(tmp_path), "tracker": {"name": tracker}})
        grouped.Summary().show(found, config)
        return capsys.readouterr().out.splitlines()

    return show


def test_groups_over_seeds_with_the_difference_to_adamw_and_its_interval(shown):
    lines = shown(more=[{"cell": "gone", "how": "failed", "error": "x"}])
    assert max(map(len, lines)) <= 80
    assert "gpt2_nano on fake" in lines[0]
    adamw, hybrid = (next(x for x in lines if x.startswith(name)) for name in LOSSES)
    assert "baseline" in adamw and "−0.30 ±" in hybrid
    assert lines[-1] == "1 failed, 6 finished"


def test_a_cell_that_two_jobs_asked_for_counts_once(shown):
    again = {"cell": "gpt2_nano-hybrid-s0-1", "how": "skipped", "error": None}
    row = next(line for line in shown(more=[again]) if line.startswith("hybrid"))
    assert row.split()[4] == "3"  # name, loss, difference, interval, n


def test_without_adamw_it_says_so(shown):
    assert "No finished AdamW run among these: nothing to compare with." in shown(("hybrid",))


def test_where_w_and_b_has_the_runs(shown, tmp_path):
    assert any(line.startswith("W&B: ") for line in shown(tracker="wandb"))


def test_the_sweeps_of_a_study_leave_the_results_to_it(shown):
    with telling.within(Part(0, 6, "tune", [])):
        assert shown() == []
    assert telling.part is None

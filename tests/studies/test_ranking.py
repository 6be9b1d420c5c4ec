"""Ranks by steps and by seconds: who reaches the baseline's loss first, and at what cost."""

import json

import pytest

from bench.records import layouts
from bench.studies import comparison, curves, ranking, step_cost, study
from bench.studies.results import Results
from bench.studies.study import FINAL
from tests.helpers import commands, fake_results


def curve(*points):
    return {"curve": [{"step": step, "val_loss": loss} for step, loss in points]}


@pytest.mark.parametrize(
    ("target", "step"),
    [(5.0, 100), (4.0, 200), (3.5, 250), (3.0, 300), (2.0, None)],
)
def test_the_step_at_which_a_loss_is_reached_lies_on_the_line_between_evaluations(target, step):
    one = curve((100, 5.0), (200, 4.0), (300, 3.0))
    one["curve"].insert(1, {"step": 150, "train_loss": 1.0})  # a training line is none
    assert curves.step_at(one, target) == step


def test_the_first_time_counts_when_a_loss_rises_again():
    assert curves.step_at(curve((1, 5.0), (2, 3.0), (3, 4.0), (4, 2.0)), 3.0) == 2


def finals(folder, losses, reach):
    """Records of experiment=field: arms with these test losses that reach AdamW's loss of 4 at
    these steps of 500, on a straight line."""
    declared = study.load("field")
    for arm, loss in losses.items():
        for seed in declared.final_seeds:
            fake = fake_results.one(declared, FINAL, "short", arm, seed, 1.0)
            at = reach[arm]
            end = 4.0 if at is None else 5.0 - 500 / at
            end = 4.5 if at is None else end
            fake["curve"] = [
                {"step": step, "seconds": 1.0, "val_loss": 5.0 - step * (5.0 - end) / 500}
                for step in (100, 200, 300, 400, 500)
            ]
            fake |= {"val_loss": end, "test_loss": loss + 0.001 * seed}
            fake_results.write(folder, fake)
    return declared


def compared(folder):
    (one,) = Results(folder).comparisons("field", None)
    return one


def test_ranks_by_steps_and_by_seconds_can_differ(tmp_path):
    losses = {"adamw": 4.0, "hybrid": 3.6, "lion": 3.8, "muon": 4.4}
    finals(tmp_path, losses, {"adamw": 500, "hybrid": 250, "lion": 400, "muon": None})
    file = fake_results.timed(tmp_path, "gpt2_pico-field", hybrid=0.8, lion=0.0, muon=0.1)
    step = json.loads(file.read_text())
    rows = {row.arm.name: row for row in ranking.ranked(compared(tmp_path), step)}
    assert list(rows) == ["hybrid", "lion", "adamw", "muon"]
    assert [rows[a].steps for a in rows] == [pytest.approx(250), pytest.approx(400), 500, None]
    assert [rows[a].by_steps for a in rows] == [1, 2, 3, None]
    assert [rows[a].by_seconds for a in rows] == [2, 1, 3, None]
    assert rows["hybrid"].seconds == pytest.approx(250 * 1.8 * 0.2)
    assert rows["muon"].never == 5 and rows["muon"].seconds is None


def test_where_one_arms_cost_is_unknown_seconds_are_not_ranked(tmp_path):
    losses = {"adamw": 4.0, "hybrid": 3.6, "lion": 3.8}
    finals(tmp_path, losses, {"adamw": 500, "hybrid": 250, "lion": 400})
    step = json.loads(fake_results.timed(tmp_path, "gpt2_pico-field", hybrid=0.8).read_text())
    rows = ranking.ranked(compared(tmp_path), step)
    assert [row.by_seconds for row in rows] == [None, None, None]
    assert [row.seconds is None for row in rows] == [False, True, False]


def test_without_a_step_benchmark_there_are_no_seconds(tmp_path):
    finals(tmp_path, {"adamw": 4.0, "lion": 3.8}, {"adamw": 500, "lion": 400})
    rows = ranking.ranked(compared(tmp_path), None)
    assert [(row.by_steps, row.by_seconds, row.seconds) for row in rows] == [
        (1, None, None),
        (2, None, None),
    ]


def test_a_run_that_diverged_never_gets_there_and_half_of_them_are_too_many(tmp_path):
    finals(tmp_path, {"adamw": 4.0, "lion": 3.8}, {"adamw": 500, "lion": 400})
    for file in sorted((tmp_path / "records" / "field").glob("*-lion-s[012]-*")):
        lost = {"status": "diverged", "test_loss": None, "diverged_step": 450}
        file.write_text(json.dumps(json.loads(file.read_text()) | lost))
    row = ranking.ranked(compared(tmp_path), None)[-1]
    assert (row.arm.name, row.steps, row.never, row.by_steps) == ("lion", None, 3, None)


def test_a_cost_that_was_not_measured_at_that_batch_is_none(tmp_path):
    found = json.loads(fake_results.timed(tmp_path, "x", hybrid=0.5).read_text())
    declared = study.load("field")
    assert layouts.step(found) is None
    assert step_cost.relative(found, declared, "hybrid", 1024) == 1.5
    assert step_cost.seconds(found, declared, "hybrid", 1024) == pytest.approx(0.3)
    assert step_cost.relative(found, declared, "hybrid", 512) is None
    assert step_cost.seconds(found, declared, "lion", 1024) is None
    found["optimizers"]["hybrid"] = {"error": "out of memory"}
    assert step_cost.seconds(found, declared, "hybrid", 1024) is None


def test_an_arm_is_timed_with_what_its_words_change_of_a_step():
    declared = study.load("iterations")
    assert step_cost.label(declared, "svd") == "hybrid orthogonalizer=exact"
    three = "hybrid orthogonalizer=keller orthogonalizer.dtype=bf16 orthogonalizer.steps=3"
    assert step_cost.label(declared, "three") == three
    assert step_cost.label(study.load("field"), "schedule_free_adamw") == "schedule_free_adamw"


def test_a_cost_timed_with_another_iteration_or_precision_is_noticed():
    declared = study.load("equal_time")
    words = ["experiment=equal_time", "optimizer=hybrid", "model=gpt2_pico"]
    settings = commands.settle(*words)
    found = {"precision": "fp32", "config": {"optimizers": {"hybrid": settings.optimizer}}}
    assert step_cost.other(found, declared, "hybrid", settings) is None
    tuned = commands.settle(
        *words, "optimizer.roles.hidden.lr=1e-4", "optimizer.roles.hidden.momentum=0.9"
    )
    assert step_cost.other(found, declared, "hybrid", tuned) is None
    slower = commands.settle(*words, "orthogonalizer.dtype=fp32")
    said = "optimizer.roles.hidden.orthogonalizer.dtype=fp32, timed with bf16 before"
    assert step_cost.other(found, declared, "hybrid", slower) == said
    said = "train.precision=fp32, timed with bf16 before"
    assert step_cost.other(found | {"precision": "bf16"}, declared, "hybrid", settings) == said


def test_an_arm_of_noise_has_no_place():
    one = comparison.Comparison(study.load("field"), "short", None, [], None, None, [], [], 0)
    assert ranking.ranked(one, None) == []

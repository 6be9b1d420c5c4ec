"""An experiment read from its records: pairs, corrections, noise, targets, and what is missing."""

import math
from pathlib import Path

import pytest

from bench.records import archive
from bench.records.archive import Archive, Run
from bench.settings.errors import UserError
from bench.studies import comparison, curves, study

STUDY = study.parse(
    "s",
    {
        "question": "?",
        "baseline": "a",
        "conditions": {"x": []},
        "arms": {"a": [], "b": [], "c": [], "a_again": ["perturb=1e-6"]},
        "rates_of": {"a_again": "a"},
        "grid": [0.5, 1, 2],
        "tune_seeds": [9],
        "final_seeds": [0, 1, 2, 3, 4],
        "margin": 0.05,
    },
)
NOISE = (0.003, -0.002, 0.001, -0.004, 0.002)


def run(arm: str, stage: str, seed: int, loss: float, rate: float = 1.0, **more) -> Run:
    steps = {10: loss + 1, 20: loss}
    record = {
        **dict(seed=seed, lr_scale=rate, status="finished", val_loss=loss, test_loss=loss),
        "curve": [{"step": step, "val_loss": value} for step, value in steps.items()],
        "overhead": {"value": 0.0 if arm.startswith("a") else 0.5},
        "forward_backward_ms": {"median": 90.0},
        "optimizer_ms": {"median": 10.0 if arm.startswith("a") else 60.0},
        "optimizer_state_bytes": {"total": 8},
        "precision": "fp32",
        "config": {"train": {"device": "cpu"}},
    } | more
    return Run("s", stage, "x", arm, record, Path(f"{arm}{seed}"))


def finals(arm: str, shift: float, noise: float = 1.0) -> list[Run]:
    return [
        run(arm, "final", seed, 2 + 0.1 * seed + shift + noise * off)
        for seed, off in enumerate(NOISE)
    ]


def tuning(arm: str, losses: tuple = (2.3, 2.1, 2.2)) -> list[Run]:
    return [run(arm, "tune", 9, x, rate) for x, rate in zip(losses, (0.5, 1, 2), strict=True)]


def compared(*runs: list[Run]) -> comparison.Comparison:
    return comparison.compare(Archive([r for of in runs for r in of], []), STUDY, "x")


ALL = (
    *(tuning(arm) for arm in "abc"),
    finals("a", 0.0, 0.0),
    finals("b", -0.3),
    finals("c", 0.0),
    finals("a_again", 0.0, 0.5),
)


def test_differences_are_paired_by_seed_and_judged():
    """Losses move by 0.4 over seeds; in pairs that is gone."""
    found = compared(*ALL)
    b, c = found.arm("b"), found.arm("c")
    assert b.difference.estimate.mean == pytest.approx(-0.3, abs=1e-3)
    assert b.difference.estimate.high < -0.29 and b.difference.p < 1e-4
    assert b.difference.verdict() == "lower"
    assert c.difference.p > 0.05 and c.difference.verdict() == "equal within ±0.05"
    assert found.arm("a").difference is None and found.missing == 0


def test_the_correction_is_over_the_arms_and_leaves_the_noise_arm_out():
    from scipy import stats

    found = compared(*ALL)
    pure = {name: [r.record["test_loss"] for r in found.arm(name).runs] for name in "abc"}
    raw = {name: stats.ttest_rel(pure[name], pure["a"]).pvalue for name in "bc"}
    assert found.arm("b").difference.p == pytest.approx(2 * raw["b"])
    assert found.arm("c").difference.p == pytest.approx(raw["c"])
    assert found.arm("a_again").difference is None and found.arm("a_again").noise
    assert 0.002 < found.noise_floor < 0.006


def test_a_rate_at_the_edge_is_flagged_also_for_the_arm_that_takes_it():
    edge = [tuning("a", (2.0, 2.1, 2.2)), *ALL[1:]]
    found = compared(*edge)
    assert found.arm("a").at_edge and found.arm("a_again").at_edge and not found.arm("b").at_edge


def test_tuning_counts_only_when_every_trial_is_there():
    found = compared(tuning("a")[:2], *ALL[1:])
    assert found.arm("a").tuned is None and found.target is None and found.missing == 1
    assert found.arm("b").tuned.rate == 1


def test_steps_to_the_target_count_runs_that_do_not_reach_it():
    found = compared(*ALL)
    assert found.target == 2.1
    assert found.arm("a").steps_to_target == [20, 20, None, None, None]
    assert found.arm("b").steps_to_target == [20, 20, 20, 20, None]
    assert curves.steps_to({"curve": [{"step": 1, "val_loss": None}]}, 9.0) is None


def test_a_diverged_run_is_counted_and_not_compared():
    lost = [r._replace(record=r.record | {"status": "diverged"}) for r in finals("b", -0.3)[:1]]
    found = compared(*ALL[:4], lost + finals("b", -0.3)[1:], *ALL[5:])
    assert found.arm("b").diverged == 1 and found.arm("b").difference.estimate.n == 4


def test_all_arms_share_one_clock():
    seconds = comparison.step_seconds(compared(*ALL))
    assert seconds["a"] == pytest.approx(0.1)
    assert seconds["b"] == pytest.approx(1.5 * seconds["a"])


def test_a_curve_is_the_mean_over_runs_at_the_steps_all_have():
    runs = finals("b", 0.0, 0.0)
    short = runs[0]._replace(record=runs[0].record | {"curve": runs[0].record["curve"][1:]})
    ((step, mean),) = curves.curve([short, *runs[1:]])
    assert step == 20 and mean.mean == pytest.approx(2.2) and mean.n == 5


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"precision": "bf16"}, "bf16 on cpu, mathematics 1"),
        ({"config": {"train": {"device": "cuda"}}}, "fp32 on cuda, mathematics 1"),
        ({"mathematics": 2}, "fp32 on cpu, mathematics 2"),
    ],
)
def test_runs_of_another_setup_are_left_out_and_named(other, words):
    """One seed of one arm made elsewhere: as if it were missing."""
    b = finals("b", -0.3)
    b[2] = b[2]._replace(record=b[2].record | other)
    found = compared(*ALL[:4], b, *ALL[5:])
    assert found.arm("b").difference.estimate.n == 4 and found.missing == 1
    assert found.left_out == [f"1 run of {words} left out: here fp32 on cpu, mathematics 1"]
    same = compared(*ALL)
    assert same.left_out == [] and same.missing == 0


def test_of_equally_many_the_latest_mathematics_is_compared_and_any_that_is_asked_for():
    again = [r._replace(record=r.record | {"mathematics": 2}) for of in ALL for r in of]
    records = Archive([*(r for of in ALL for r in of), *again], [])
    found = comparison.compare(records, STUDY, "x")
    assert {archive.mathematics.of(r.record) for r in found.runs} == {2} and found.missing == 0
    asked = archive.Setup("fp32", "cpu", 1)
    found = comparison.compare(records, STUDY, "x", asked)
    assert {archive.setup(r.record) for r in found.runs} == {asked}
    nothing = comparison.compare(records, STUDY, "x", archive.Setup("bf16", "cpu", 2))
    assert nothing.arms == [] and len(nothing.left_out) == 2


def test_an_arm_is_orthogonalized_in_one_dtype():
    def in_dtype(run, dtype):
        roles = {"hidden": {"orthogonalizer": {"dtype": dtype}}, "vector": {}}
        config = run.record["config"] | {"optimizer": {"roles": roles}}
        return run._replace(record=run.record | {"config": config})

    b = [in_dtype(run, "fp32") for run in (*finals("b", -0.3), *tuning("b"))]
    b[1] = in_dtype(b[1], "bf16")
    c = [in_dtype(run, "bf16") for run in (*finals("c", 0.0), *tuning("c"))]  # it may be an arm's
    found = compared(tuning("a"), finals("a", 0.0, 0.0), b, c, ALL[-1])
    assert found.arm("b").difference.estimate.n == 4 and found.arm("c").difference.estimate.n == 5
    assert found.left_out == ["1 run of b, orthogonalizer.dtype=bf16, left out: here fp32"]


def test_an_arm_that_sets_the_precision_is_refused():
    block = {"question": "?", "baseline": "a", "conditions": {"x": []}, "final_seeds": [0]}
    for word in ("train.precision=bf16", "train.device=cuda"):
        with pytest.raises(UserError, match=f"study.arms.b: {word}: .*make it a condition"):
            study.parse("s", block | {"arms": {"a": [], "b": [word]}})


def test_what_is_missing_is_counted_and_a_lone_seed_has_no_interval():
    found = compared(finals("a", 0.0)[:1], finals("b", 0.0)[:1])
    assert found.missing == 9 + 20 - 2
    assert math.isinf(found.arm("b").difference.estimate.high)
    assert found.arm("b").difference.verdict() == "no difference shown"

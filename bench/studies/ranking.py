"""The arms of a comparison by how soon they reach the baseline's loss, in steps and in seconds."""

import math
from dataclasses import dataclass, replace
from typing import Any

from bench.studies import curves, stats, step_cost
from bench.studies.comparison import Arm, Comparison


@dataclass(frozen=True)
class Ranked:
    """One arm.

    steps: the median over seeds at which its validation loss is that which the baseline ends with
    on the same seed, between two evaluations by a straight line; None if half or more never get
    there; never: how many do not; step_seconds: of a step measured alone; by_steps, by_seconds:
    ranks from 1 among the arms that get there, by seconds only if each one's cost is known.
    """

    arm: Arm
    steps: float | None
    never: int
    step_seconds: float | None
    by_steps: int | None = None
    by_seconds: int | None = None

    @property
    def seconds(self) -> float | None:
        known = self.steps is not None and self.step_seconds is not None
        return self.steps * self.step_seconds if known else None  # type: ignore[operator]


def ranked(one: Comparison, step: dict[str, Any] | None) -> list[Ranked]:
    """Who reaches the baseline's loss first, the first at the top; then the others by test loss.

    step: the step benchmark that says what a step costs; without it there are no seconds.
    """
    base = one.arm(one.study.baseline)
    targets = {} if base is None else curves.by_seed(base.runs, "val_loss")
    rows = [placed(one, arm, targets, step) for arm in one.arms if not arm.noise]
    steps = [row.steps for row in rows if row.steps is not None]
    seconds = [row.seconds for row in rows if row.seconds is not None]
    if len(seconds) < len(steps):
        seconds = []  # a rank among some would not compare with the rank among all
    rows = [
        replace(row, by_steps=place(row.steps, steps), by_seconds=place(row.seconds, seconds))
        for row in rows
    ]
    return sorted(rows, key=lambda row: (row.by_steps or math.inf, last(row.arm)))


def place(value: float | None, values: list[float]) -> int | None:
    """The rank from 1 of a value among all; None without a value or without ranks."""
    return None if value is None or not values else 1 + sum(other < value for other in values)


def placed(
    one: Comparison, arm: Arm, targets: dict[int, float], step: dict[str, Any] | None
) -> Ranked:
    """An arm's steps and seconds, without its ranks."""
    reached = [
        curves.step_at(run.record, targets[run.record["seed"]])
        if run.record["status"] == "finished"
        else None
        for run in arm.runs
        if run.record["seed"] in targets
    ]
    units = arm.median("tokens_per_step") or arm.median("images_per_step")
    cost = step_cost.seconds(step, one.study, arm.name, int(units)) if step and units else None
    return Ranked(arm, stats.censored_median(reached), reached.count(None), cost)


def last(arm: Arm) -> float:
    """The test loss, for the order of those that never get there; what diverged comes last."""
    return arm.test_loss.mean if arm.test_loss.n else math.inf

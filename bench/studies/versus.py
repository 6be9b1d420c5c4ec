"""Compares two groups of runs: losses, steps and seconds to equal loss, settings."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.records.archive import Run
from bench.settings.errors import UserError
from bench.studies import differing, pairs, selection, stats
from bench.studies.stats import Estimate

LOSSES = {"val_loss": "validation loss", "test_loss": "test loss"}


@dataclass(frozen=True)
class Loss:
    """A loss of both groups, as means over their runs, and the second's minus the first's.

    paired: by seed; test: its name; p: of "no difference", nan if it cannot be tested.
    """

    name: str
    ours: float
    theirs: float
    difference: Estimate
    paired: bool
    test: str
    p: float


@dataclass(frozen=True)
class Reached:
    """When one group's runs reach the final validation loss of the other group, as medians.

    target: that loss; of: the other group's own steps and seconds; step, seconds: None if most runs
    never reach it; never: how many runs do not; runs: how many there are.
    """

    target: float
    of: tuple[float, float | None]
    step: float | None
    seconds: float | None
    never: int
    runs: int


@dataclass(frozen=True)
class Versus:
    """ours, theirs: the runs of A and of B; losses: those that both have; b_to_a: how B's runs
    reach A's final loss; a_to_b: the reverse; None if no run has a curve; differing: settings as
    name, A's value, B's value.
    """

    names: tuple[str, str]
    ours: list[Run]
    theirs: list[Run]
    losses: list[Loss]
    b_to_a: Reached | None
    a_to_b: Reached | None
    differing: list[tuple[str, str, str]]


def compare(runs: Iterable[Run], typed: str) -> Versus:
    """The comparison for `compare=[A,B]`. Raises UserError for equal names, or without runs."""
    every = list(runs)
    names = selection.two(typed)
    ours, theirs = (selection.chosen(every, name) for name in names)
    both = {run.record["cell"] for run in ours} & {run.record["cell"] for run in theirs}
    if both:
        raise UserError(f"compare={typed}: {min(both)} is in both; they have to differ")
    losses = [found for key in LOSSES if (found := loss(ours, theirs, key))]
    paired = any(one.paired for one in losses)
    return Versus(
        names,
        ours,
        theirs,
        losses,
        reached(theirs, ours, paired),
        reached(ours, theirs, paired),
        differing.table(ours, theirs),
    )


def loss(ours: list[Run], theirs: list[Run], key: str) -> Loss | None:
    """B's minus A's, paired if seeds pair, else of independent runs; None without values."""
    a, b = pairs.by_key(ours, key), pairs.by_key(theirs, key)
    if not a or not b:
        return None
    places = sorted(a.keys() & b.keys())
    if not places:
        means = statistics.mean(a.values()), statistics.mean(b.values())
        difference, p = stats.unpaired(list(b.values()), list(a.values()))
        return Loss(LOSSES[key], *means, difference, False, "Welch's t", p)
    values = [b[place] - a[place] for place in places]
    means = statistics.mean(a[p] for p in places), statistics.mean(b[p] for p in places)
    p, test = stats.p_value(values)
    return Loss(LOSSES[key], *means, stats.mean_interval(values), True, test, p)


def reached(runs: list[Run], others: list[Run], paired: bool) -> Reached | None:
    """When `runs` reach the final validation loss of `others`: with the same seed if they pair."""
    finals = pairs.by_key(others, "val_loss")
    mean = statistics.mean(finals.values()) if finals else None
    targets: list[tuple[dict[str, Any], float]] = []
    for one in (run.record for run in runs):
        own = finals.get((pairs.same(pairs.conditions(one)), one["seed"])) if paired else mean
        if own is not None and any(line.get("val_loss") is not None for line in one["curve"]):
            targets.append((one, own))
    if not targets:
        return None
    lines = [_first(one, target) for one, target in targets]
    steps = [line["step"] if line else None for line in lines]
    seconds = [line.get("seconds") if line else None for line in lines]
    return Reached(
        statistics.mean(target for _, target in targets),
        _whole(others),
        stats.censored_median(steps),
        stats.censored_median(seconds),
        steps.count(None),
        len(steps),
    )


def _first(one: dict[str, Any], target: float) -> dict[str, Any] | None:
    """The first evaluated line of a curve that is at or below the target."""
    found = (p for p in one["curve"] if (v := p.get("val_loss")) is not None and v <= target)
    return next(found, None)


def _whole(runs: list[Run]) -> tuple[float, float | None]:
    """Steps and seconds of complete runs, as medians."""
    seconds = [s for run in runs if (s := run.record.get("train_seconds")) is not None]
    steps = statistics.median(run.record["steps"] for run in runs)
    return steps, statistics.median(seconds) if seconds else None


def same_clock(ours: list[Run], theirs: list[Run]) -> bool:
    """Whether all were made on one kind of machine, threads and preloaded libraries alike."""
    made = [run.record["environment"] for run in (*ours, *theirs)]
    clocks = {(e.get("gpu") or e.get("cpu"), e.get("threads"), e.get("preload")) for e in made}
    return len(clocks) == 1

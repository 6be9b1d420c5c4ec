"""Values of runs by step and by seed."""

from typing import Any

from bench.records.archive import Run
from bench.studies import stats
from bench.studies.stats import Estimate


def by_seed(runs: list[Run], key: str) -> dict[int, float]:
    """A value of the finished runs, by seed."""
    return {
        run.record["seed"]: run.record[key]
        for run in runs
        if run.record["status"] == "finished" and run.record.get(key) is not None
    }


def steps_to(one: dict[str, Any], target: float) -> int | None:
    """The first evaluated step at which a run's validation loss is at or below the target."""
    reached = (
        line["step"]
        for line in one["curve"]
        if line.get("val_loss") is not None and line["val_loss"] <= target
    )
    return next(reached, None)


def step_at(one: dict[str, Any], target: float) -> float | None:
    """The step at which a run's validation loss first is the target, between two evaluations by a
    straight line; None if it is never so low."""
    before: tuple[int, float] | None = None
    for line in one["curve"]:
        if (loss := line.get("val_loss")) is None:
            continue
        if loss <= target:
            if before is None:
                return line["step"]
            share = (before[1] - target) / (before[1] - loss)
            return before[0] + share * (line["step"] - before[0])
        before = line["step"], loss
    return None


def curve(runs: list[Run]) -> list[tuple[int, Estimate]]:
    """The validation loss at each evaluated step that all finished runs have."""
    by_step: dict[int, list[float]] = {}
    finished = [run for run in runs if run.record["status"] == "finished"]
    for run in finished:
        for line in run.record["curve"]:
            if line.get("val_loss") is not None:
                by_step.setdefault(line["step"], []).append(line["val_loss"])
    whole = {step: of for step, of in by_step.items() if len(of) == len(finished)}
    return [(step, stats.mean_interval(of)) for step, of in sorted(whole.items())]


def gap(ours: list[Run], theirs: list[Run]) -> list[tuple[int, Estimate]]:
    """Validation loss of ours minus that of theirs, paired by seed, at each evaluated step that all
    pairs of finished runs share."""
    own, other = _by_step(ours), _by_step(theirs)
    pairs = [(own[seed], other[seed]) for seed in sorted(own.keys() & other.keys())]
    if not pairs:
        return []
    steps = sorted(set.intersection(*(set(a) & set(b) for a, b in pairs)))
    return [(at, stats.mean_interval([a[at] - b[at] for a, b in pairs])) for at in steps]


def _by_step(runs: list[Run]) -> dict[int, dict[int, float]]:
    """The validation losses of the finished runs, by seed and step."""
    return {
        run.record["seed"]: {
            line["step"]: line["val_loss"]
            for line in run.record["curve"]
            if line.get("val_loss") is not None
        }
        for run in runs
        if run.record["status"] == "finished"
    }

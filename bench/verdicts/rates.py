"""Whether a best rate stays put from one condition to another, from the runs of a grid."""

import math
from statistics import mean

from bench.records.archive import Run
from bench.studies import study
from bench.studies.comparison import Comparison
from bench.studies.results import Results
from bench.studies.study import TUNE
from bench.verdicts.finding import Finding

UNIT = "factor by which the best rate moves (1: it stays put; in brackets the range over seeds)"
SEEDS = 2  # without a second one nothing is known of the spread


def moved(results: Results, *, experiment: str, arm: str, conditions: list[str]) -> list[Finding]:
    """The best rate under the last of two conditions, over that under the first.

    Of each tuning seed that has the whole grid under both: the geometric mean of these quotients
    and their range. Undecided if a best rate lies at the grid's edge, or beside a diverged run.
    """
    first, last = conditions
    found = []
    for device in results.devices(experiment, last):
        both = [results.compare(experiment, under, None, device) for under in (first, last)]
        grids = [by_seed(one, arm) for one in both]
        seeds = sorted(grids[0].keys() & grids[1].keys())
        where = f"{arm}, {both[1].condition} against {both[0].condition} ({experiment})"
        if len(seeds) < SEEDS:
            missing = f"{SEEDS} seeds with the whole grid of {arm}, {len(seeds)} so far, of "
            found.append(Finding(where, missing=f"{missing}experiment={experiment}"))
            continue
        best = [{seed: lowest(losses(grid[seed])) for seed in seeds} for grid in grids]
        runs = {run.file for grid in grids for seed in seeds for run in grid[seed]}
        files = sorted(map(results.place, runs))
        found.append(_finding(where, best, seeds, files))
    return found


def _finding(
    where: str, best: list[dict[int, float | None]], seeds: list[int], files: list[str]
) -> Finding:
    quotients = [b / a for seed in seeds if (a := best[0][seed]) and (b := best[1][seed])]
    if len(quotients) < len(seeds):
        why = "a best rate at the edge of the grid, or beside a diverged run"
        return Finding(where, n=len(seeds), unit=UNIT, undecided=why, records=files)
    centre = math.exp(mean(map(math.log, quotients)))
    ends = min(quotients), max(quotients)
    words = " to ".join(", ".join(f"{one[seed]:.3g}" for seed in seeds) for one in best)
    note = f"best lr_scale by seed: {words}"
    return Finding(where, centre, *ends, len(seeds), UNIT, note=note, records=files)


def by_seed(one: Comparison, arm: str) -> dict[int, list[Run]]:
    """The tuning runs of an arm, of the seeds that have the whole grid."""
    found: dict[int, list[Run]] = {}
    for run in one.runs:
        if run.arm == arm and run.stage == TUNE:
            found.setdefault(run.record["seed"], []).append(run)
    return {seed: own for seed, own in found.items() if losses(own).keys() == set(one.study.grid)}


def losses(runs: list[Run]) -> dict[float, float]:
    """The losses that rates are chosen by, by rate; infinite for a run that diverged."""
    of = {run.record["lr_scale"]: study.loss(run.record) for run in runs}
    return {rate: math.inf if value is None else value for rate, value in sorted(of.items())}


def lowest(losses: dict[float, float]) -> float | None:
    """The rate at the lowest point of the parabola, in the logarithm of the rate, through the best
    of these rates and its two neighbours; None at an edge, beside a loss that is not finite, and
    where all three losses are equal."""
    rates = sorted(losses)
    at = min(range(len(rates)), key=lambda i: losses[rates[i]])
    near = rates[max(0, at - 1) : at + 2]
    values = [losses[rate] for rate in near]
    if len(near) < 3 or not all(map(math.isfinite, values)) or min(values) == max(values):
        return None
    # By divided differences: a fit by linear algebra rounds as the processor does.
    x, y = [math.log(rate) for rate in near], values
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    return math.exp((x[0] + x[1]) / 2 - left * (x[2] - x[0]) / (2 * (right - left)))

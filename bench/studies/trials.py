"""The trials of a search: the points that they try, their order, and what they found."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from bench.studies.axes import AXES, Point
from bench.studies.search import Carried, Search

Losses = list[float]  # of the trials of one study, in order; infinite: diverged
CROWDED = 0.25  # share at one end of a range that holds over half of the better trials


def pilot_points(
    search: Search, start: Point, losses: Callable[[Point], float | None]
) -> tuple[list[Point], Point | None]:
    """The known points of a pilot, in order, and its centre; None until the pilot has ended.

    start: the first point; losses: gives the loss of a point, None if it has none yet.
    """
    centre, points = dict(start), []
    for kind, factors in search.pilot.items():
        axis = next(name for name in centre if AXES[name].kind == kind)
        line = [centre | {axis: centre[axis] * factor} for factor in factors]
        points += [point for point in line if point not in points]
        found = [loss for point in line if (loss := losses(point)) is not None]
        if len(found) < len(line):
            return points, None
        centre = ranked(line, found)[0]
    return points, centre


def ranked(points: list[Point], losses: Losses) -> list[Point]:
    """The trials of a study, the best first."""
    order = sorted(range(len(points)), key=lambda at: losses[at])
    return [points[at] for at in order]


def carried(one: Carried, ranking: list[Point], factor: float = 1.0) -> list[Point]:
    """The trials of a study for a condition that is tuned from another one's, the best first.

    factor: applied to all rates.
    """
    return [
        ranking[int(rank) - 1] | {"rate": ranking[int(rank) - 1]["rate"] * by * factor}
        for rank, by in one.tries
    ]


def chosen(one: Carried, points: list[Point], losses: Losses) -> list[Point]:
    """The trials of a carried condition, best first; the first try leads unless clearly beaten."""
    order = ranked(points, losses)
    if losses[0] - min(losses) > one.gain or math.isinf(losses[0]):
        return order
    return [points[0], *(point for point in order if point is not points[0])]


@dataclass(frozen=True)
class Trial:
    """One trial of a study: its point and its validation loss, infinite if it diverged."""

    point: Point
    loss: float


@dataclass(frozen=True)
class Found:
    """The searches of an arm under a condition: trials by the tuning seed of their study."""

    studies: dict[int, list[Trial]]

    @property
    def trials(self) -> int:
        """The number of trials in each study."""
        return len(next(iter(self.studies.values())))

    def winners(self) -> dict[int, Trial]:
        return {seed: min(trials, key=lambda t: t.loss) for seed, trials in self.studies.items()}

    def best_of(self, trials: int) -> list[float]:
        """For each study the expected lowest loss of this many of its trials, chosen at random."""
        return [expected_best([t.loss for t in one], trials) for one in self.studies.values()]

    def crowded(self) -> str | None:
        """lower or upper if more than half of the better third of all trials lie in the quarter of
        the rate's range at that end: the best rate may lie beyond it."""
        every = [trial for trials in self.studies.values() for trial in trials]
        every = [trial for trial in every if trial.point.get("rate")]
        logs = [math.log(trial.point["rate"]) for trial in every]
        low, high = min(logs, default=0.0), max(logs, default=0.0)
        if not high > low:
            return None
        better = sorted(range(len(every)), key=lambda at: every[at].loss)
        better = better[: math.ceil(len(every) / 3)]
        places = [(logs[at] - low) / (high - low) for at in better]
        ends = {
            "lower": sum(at <= CROWDED for at in places),
            "upper": sum(at >= 1 - CROWDED for at in places),
        }
        return next((end for end, many in ends.items() if many > len(better) / 2), None)


def expected_best(losses: Losses, trials: int) -> float:
    """The mean, over all choices of `trials` of the losses, of the lowest one chosen."""
    whole = len(losses)
    if not 1 <= trials <= whole:
        raise ValueError(f"trials={trials}: must be from 1 to {whole}")
    weights = (math.comb(whole - at, trials - 1) for at in range(1, whole + 1))
    chosen = math.comb(whole, trials)
    parts = [(loss, weight / chosen) for loss, weight in zip(sorted(losses), weights, strict=True)]
    return sum(loss * weight for loss, weight in parts if weight)

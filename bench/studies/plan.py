"""Which runs a study consists of, and the command lines that train them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.studies import trials
from bench.studies.axes import Point, Values
from bench.studies.study import FINAL, PILOT, TUNE, Study


@dataclass(frozen=True)
class Sweep:
    """Runs of one arm under one condition that differ in rate and seed, or one run at a point."""

    stage: str
    condition: str
    arm: str
    overrides: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    point: tuple[tuple[str, float], ...] = ()  # the point of a search

    @property
    def key(self) -> tuple[str, str, str]:
        return self.stage, self.condition, self.arm

    def arguments(self, experiment: str, values: Values = ()) -> list[str]:
        """The command line of bench/train.py that trains them; values: the point's settings."""
        part = [f"{key}={getattr(self, key)}" for key in ("stage", "condition", "arm")]
        rates = ",".join(f"{rate:g}" for rate in self.rates)
        seeds = ",".join(map(str, self.seeds))
        settings = [f"{key}={value}".replace(" ", "") for key, value in values]
        if self.rates:
            settings.append(f"optimizer.lr_scale={rates}")
        return [
            *("-m", f"experiment={experiment}", *part, *self.overrides, *settings),
            f"seed={seeds}",
        ]


def tuning(study: Study) -> Iterator[Sweep]:
    """Sweeps of every arm over the same grid of rates and the same seeds."""
    for condition, common in study.conditions.items():
        for arm in study.tuned():
            yield Sweep(
                *(TUNE, condition, arm, (*common, *study.arms[arm])),
                *(tuple(study.grid), tuple(study.tune_seeds)),
            )


def final(study: Study, rates: dict[tuple[str, str], float]) -> Iterator[Sweep]:
    """Sweeps of every arm over the same seeds; rates: by condition and tuned arm."""
    for condition, common in study.conditions.items():
        for arm, own in study.arms.items():
            source = study.rates_of.get(arm, arm)
            rate = rates.get((condition, source), study.rates.get(source, 1.0))
            yield Sweep(
                *(FINAL, condition, arm, (*common, *own)),
                *((rate,), tuple(study.final_seeds)),
            )


Rankings = dict[tuple[str, str, int], list[Point]]  # by condition, arm and study; the best first


def searching(
    study: Study, losses: Callable[[Sweep], float | None], rankings: Rankings | None = None
) -> Iterator[Sweep]:
    """All runs of a search with known settings, study after study; each sweep is one cell.

    losses: gives the loss of a run, or None if it has not ended; runs that depend on it are then
    still unknown. rankings: those of the trials of other experiments, by experiment/condition; the
    trials of this one are added.
    """
    yield from _Searching(study, losses, {} if rankings is None else rankings).sweeps()


class _Searching:
    """The progress of a search."""

    def __init__(
        self, study: Study, losses: Callable[[Sweep], float | None], rankings: Rankings
    ) -> None:
        assert study.search is not None
        self.study, self.search = study, study.search
        self.losses, self.rankings = losses, rankings
        self.centres: dict[tuple[str, str], Point] = {}

    def sweeps(self) -> Iterator[Sweep]:
        carry = self.search.carry
        searched = [condition for condition in self.study.conditions if condition not in carry]
        for condition in self.study.conditions:
            for arm, start in self.search.centres.items():
                if self.search.carried(condition, arm) is None:
                    yield from self.pilot(condition, arm, start)
        for condition in (*searched, *carry):
            for at, seed in enumerate(self.study.final_seeds):
                for arm in self.study.tuned():
                    yield from self.trials(condition, arm, at)
                for arm in self.study.arms:
                    source = self.study.rates_of.get(arm, arm)
                    if ranking := self.rankings.get((condition, source, at)):
                        offset = self.study.offset(arm)
                        yield self.run(FINAL, condition, arm, ranking[0], seed + offset)

    def run(self, stage: str, condition: str, arm: str, point: Point, seed: int) -> Sweep:
        overrides = (*self.study.conditions[condition], *self.study.arms[arm])
        return Sweep(stage, condition, arm, overrides, (), (seed,), tuple(point.items()))

    def pilot(self, condition: str, arm: str, start: Point) -> Iterator[Sweep]:
        """The known runs of a pilot; its centre is noted when it has ended."""
        seed = self.search.pilot_seed
        points, centre = trials.pilot_points(
            *(self.search, start),
            lambda point: self.losses(self.run(PILOT, condition, arm, point, seed)),
        )
        yield from (self.run(PILOT, condition, arm, point, seed) for point in points)
        if centre is not None:
            self.centres[condition, arm] = centre

    def trials(self, condition: str, arm: str, at: int) -> Iterator[Sweep]:
        """The trials of one study of an arm; their ranking is noted when all have ended."""
        points, carry = self.points(condition, arm, at), self.search.carried(condition, arm)
        if points is None:
            return
        if carry is not None and not carry.trains:
            self.rankings[condition, arm, at] = points
            return
        seed = self.study.tune_seeds[at]
        runs = [self.run(TUNE, condition, arm, point, seed) for point in points]
        yield from runs
        found = [loss for one in runs if (loss := self.losses(one)) is not None]
        if len(found) == len(runs):
            order = trials.chosen(carry, points, found) if carry else trials.ranked(points, found)
            self.rankings[condition, arm, at] = order

    def points(self, condition: str, arm: str, at: int) -> list[Point] | None:
        """The points of the trials of one study of an arm; None if they are still unknown."""
        carry = self.search.carried(condition, arm)
        if carry is None:
            centre = self.centres.get((condition, arm))
            seed = self.study.tune_seeds[at]
            return None if centre is None else self.search.points(arm, centre, seed)
        ranking = self.rankings.get((carry.source, self.search.takes.get(arm, arm), at))
        factor = 1.0
        if carry.rates_as is not None:
            factor = self.moved(carry.rates_as, arm, at)
        return trials.carried(carry, ranking, factor) if ranking and factor else None

    def moved(self, condition: str, arm: str, at: int) -> float:
        """The factor of a carried condition on its source's best rate; 0 while it is unknown."""
        source = self.search.carry[condition].source
        own = self.rankings.get((condition, arm, at))
        theirs = self.rankings.get((source, self.search.takes.get(arm, arm), at))
        return own[0]["rate"] / theirs[0]["rate"] if own and theirs else 0.0

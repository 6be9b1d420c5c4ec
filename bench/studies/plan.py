"""Which runs a study consists of, and what is typed to train them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.studies import search
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
    point: tuple[tuple[str, float], ...] = ()  # of a search

    @property
    def key(self) -> tuple[str, str, str]:
        return self.stage, self.condition, self.arm

    def arguments(self, experiment: str, values: Values = ()) -> list[str]:
        """The command line of bench/train.py that trains them; values: of the point's settings."""
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
    """Every arm over the same grid of rates and the same seeds."""
    for condition, common in study.conditions.items():
        for arm in study.tuned():
            yield Sweep(
                *(TUNE, condition, arm, (*common, *study.arms[arm])),
                *(tuple(study.grid), tuple(study.tune_seeds)),
            )


def final(study: Study, rates: dict[tuple[str, str], float]) -> Iterator[Sweep]:
    """Every arm over the same seeds; rates: by condition and arm that was tuned."""
    for condition, common in study.conditions.items():
        for arm, own in study.arms.items():
            source = study.rates_of.get(arm, arm)
            rate = rates.get((condition, source), study.rates.get(source, 1.0))
            yield Sweep(
                *(FINAL, condition, arm, (*common, *own)),
                *((rate,), tuple(study.final_seeds)),
            )


def searching(study: Study, losses: Callable[[Sweep], float | None]) -> Iterator[Sweep]:
    """All runs of a search whose settings are known, study after study; each of one cell.

    losses: of a run, None where it has not ended: what hangs on it is not known yet.
    """
    assert study.search is not None
    centres: dict[tuple[str, str], Point] = {}
    rankings: dict[tuple[str, str, int], list[Point]] = {}

    def run(stage: str, condition: str, arm: str, point: Point, seed: int) -> Sweep:
        overrides = (*study.conditions[condition], *study.arms[arm])
        return Sweep(stage, condition, arm, overrides, (), (seed,), tuple(point.items()))

    def trials(condition: str, arm: str, at: int) -> Iterator[Sweep]:
        """Those of one study of an arm; their ranking is noted when all have ended."""
        assert study.search is not None
        seed, carry = study.tune_seeds[at], study.search.carry.get(condition)
        if carry is None and (condition, arm) in centres:
            points = study.search.points(arm, centres[condition, arm], seed)
        elif carry is not None and (carry.source, arm, at) in rankings:
            points = search.carried(carry, rankings[carry.source, arm, at])
        else:
            return
        runs = [run(TUNE, condition, arm, point, seed) for point in points]
        yield from runs
        found = [loss for one in runs if (loss := losses(one)) is not None]
        if len(found) == len(runs):
            rankings[condition, arm, at] = search.ranked(points, found)

    def pilot(condition: str, arm: str, start: Point) -> Iterator[Sweep]:
        """As far as it is known; the centre is noted when it has ended."""
        assert study.search is not None
        seed = study.search.pilot_seed
        points, centre = search.pilot_points(
            *(study.search, start), lambda point: losses(run(PILOT, condition, arm, point, seed))
        )
        yield from (run(PILOT, condition, arm, point, seed) for point in points)
        if centre is not None:
            centres[condition, arm] = centre

    searched = [c for c in study.conditions if c not in study.search.carry]
    for condition in searched:
        for arm, start in study.search.centres.items():
            yield from pilot(condition, arm, start)
    for condition in (*searched, *study.search.carry):
        for at, seed in enumerate(study.final_seeds):
            for arm in study.search.centres:
                yield from trials(condition, arm, at)
            for arm in study.arms:
                ranking = rankings.get((condition, study.rates_of.get(arm, arm), at))
                if ranking:
                    yield run(FINAL, condition, arm, ranking[0], seed + study.offset(arm))

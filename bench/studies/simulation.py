"""Tests the protocol on made-up optimizers whose true difference is known.

A made-up loss is a parabola in the logarithm of every axis, plus an effect of the seed that all
arms share, plus noise of each run. The runs are those that plan.searching plans and the tests are
those of difference.between, so the simulated code is the code that judges real runs, tuning
included.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from bench.studies import difference, plan, search
from bench.studies.axes import AXES, Point
from bench.studies.plan import Sweep
from bench.studies.study import FINAL, TUNE, Study

# Nats lost per squared octave away from the optimum: for the rate as in AdamW's and hybrid's
# pilots, for the others a third and a tenth of it.
CURVATURE = {"rate": 0.04, "relative": 0.012, "averaging": 0.012, "decay": 0.004, "warmup": 0.004}
BOTH_SEEDS = 0.02  # standard deviations, in nats: of the seed's data order and initial weights,
OWN_NOISE = 0.01  # which arms share, and of each run's own noise
LONGER = {"rate": math.log2(0.6)}  # octaves by which the optima move to the long horizon
CARRIED = search.Carried("only", [[1, 1], [2, 1], [1, 0.6]])  # as in experiment=language
OWN_RATES = search.Carried("lender/only", [[1, 1], [1, 0.7], [1, 1.4]], gain=0.01)  # as in sparse


@dataclass(frozen=True)
class World:
    """Two arms; when both are fully tuned, the second is better by `gain` nats.

    offsets: by kind of axis, in octaves, the distance of the second arm's optimum from the declared
    centre of its search; the first arm's optimum is half as far in the other direction.
    """

    gain: float = 0.0
    offsets: dict[str, float] = field(default_factory=dict)
    margin: float = 0.036  # that of experiment=language


@dataclass(frozen=True)
class Outcome:
    """mean, low, high: of the paired differences, with their 95 % interval; p: of none."""

    mean: float
    low: float
    high: float
    p: float
    outcome: str


@dataclass(frozen=True)
class Uneven(search.Search):
    """Ranges of the second arm are twice as wide as those of the first."""

    def points(self, arm: str, centre: Point, seed: int) -> list[Point]:
        if arm == "first":
            return super().points(arm, centre, seed)
        wider = replace(self, widths={kind: 2 * wide for kind, wide in self.widths.items()})
        return search.Search.points(wider, arm, centre, seed)


def declared(
    world: World,
    wider: float = 1.0,
    studies: int = 5,
    trials: int = 6,
    uneven: bool = False,
    longer: bool = False,
) -> Study:
    """A study of two arms; wider: the factor on the ranges of the published studies; longer: with
    a second condition, tuned from the first one's trials."""
    widths = {"rate": 8, "relative": 16, "averaging": 8, "decay": 16, "warmup": 8}
    centre = {"rate": 1.0, "embedding": 1.0, "beta2": 0.02, "decay": 0.2, "warmup": 0.05}
    block = (Uneven if uneven else search.Search)(
        trials=trials,
        pilot_seed=50,
        pilot={"rate": [0.5, 1, 2, 4, 8], "relative": [0.25, 1, 4]},
        widths={kind: wide * wider for kind, wide in widths.items()},
        centres={"first": centre, "second": dict(centre)},
        carry={"long": CARRIED} if longer else {},
        takes={},
        other_seeds={},
    )
    return Study(
        name="simulated",
        question="?",
        baseline="first",
        conditions={"only": [], "long": []} if longer else {"only": []},
        arms={"first": [], "second": []},
        final_seeds=list(range(studies)),
        tune_seeds=list(range(100, 100 + studies)),
        search=block,
        margin=world.margin,
    )


def losses(world: World, study: Study, generator: np.random.Generator) -> Callable[[Sweep], float]:
    """The final loss of each run; the same run has the same loss."""
    known: dict[Sweep, float] = {}
    shared: dict[int, float] = {}

    def loss(sweep: Sweep) -> float:
        if sweep not in known:
            (seed,) = sweep.seeds
            side = {"first": -0.5, "second": 1.0}[sweep.arm]
            value = 4.0 + shared.setdefault(seed, generator.normal(0, BOTH_SEEDS))
            value += generator.normal(0, OWN_NOISE) - (world.gain if sweep.arm == "second" else 0)
            assert study.search is not None
            for axis, at in sweep.point:
                kind = AXES[axis].kind
                moved = LONGER.get(kind, 0.0) if sweep.condition == "long" else 0.0
                octaves = side * world.offsets.get(kind, 0.0) + moved
                best = study.search.centres[sweep.arm][axis] * 2.0**octaves
                value += CURVATURE[kind] * math.log2(at / best) ** 2
            known[sweep] = value
        return known[sweep]

    return loss


def independent(world: World, study: Study, generator: np.random.Generator) -> Outcome:
    """The actual protocol: a separate search for each final seed."""
    return _searched(study, losses(world, study, generator), {})


def borrowing(world: World, study: Study, generator: np.random.Generator) -> Outcome:
    """Arms that share an optimizer: both have the winners of one's searches and three rates."""
    assert study.search is not None
    loss = losses(world, study, generator)
    lending = {"first": study.search.centres["first"]}
    lender = replace(study, arms={"first": []}, search=replace(study.search, centres=lending))
    found: plan.Rankings = {}
    list(plan.searching(lender, loss, found))
    lent = {(f"lender/{key[0]}", key[1], key[2]): points for key, points in found.items()}
    takes = dict.fromkeys(study.arms, "first")
    block = replace(study.search, centres={}, takes=takes, carry={"only": OWN_RATES})
    return _searched(replace(study, search=block), loss, lent)


def _searched(study: Study, loss: Callable[[Sweep], float], lent: plan.Rankings) -> Outcome:
    """The outcome of the last condition; lent: the rankings of other experiments."""
    ended: dict[str, dict[int, float]] = {}
    for sweep in plan.searching(study, loss, lent):
        if sweep.stage == FINAL and sweep.condition == list(study.conditions)[-1]:
            ended.setdefault(sweep.arm, {})[sweep.seeds[0]] = loss(sweep)
    return _outcome(ended, study)


def one_search(world: World, study: Study, generator: np.random.Generator) -> Outcome:
    """The earlier protocol: one search, whose best trial trains from every final seed."""
    once = replace(study, tune_seeds=study.tune_seeds[:1], final_seeds=study.final_seeds[:1])
    loss = losses(world, once, generator)
    ended: dict[str, dict[int, float]] = {}
    tried: dict[str, list[Sweep]] = {}
    for sweep in plan.searching(once, loss):
        if sweep.stage == TUNE:
            tried.setdefault(sweep.arm, []).append(sweep)
    for arm, sweeps in tried.items():
        best = replace(min(sweeps, key=loss), stage=FINAL)
        ended[arm] = {s: loss(replace(best, seeds=(s,))) for s in study.final_seeds}
    return _outcome(ended, study)


def _outcome(ended: dict[str, dict[int, float]], study: Study) -> Outcome:
    found = difference.between(ended, study, list(study.arms))["second"]
    one = found.estimate
    return Outcome(one.mean, one.low, one.high, found.p, found.outcome)


@dataclass(frozen=True)
class Summary:
    """Over many repetitions: the mean difference; the shares of differences called real (p below 5
    %), beyond the margin, and equal; the share of intervals that contain the mean difference (the
    estimand: what these searches find on average); error: the standard error of a share of 5 %."""

    repetitions: int
    mean: float
    spread: float
    real: float
    beyond: float
    equal: float
    covers: float
    error: float


def repeat(
    protocol: Callable[[World, Study, np.random.Generator], Outcome],
    world: World,
    repetitions: int,
    seed: int = 0,
    **changes: float,
) -> Summary:
    """changes: passed to `declared`. Every repetition has its own noise and its own scrambles."""
    found = []
    for at in range(repetitions):
        study = declared(world, **changes)  # type: ignore[arg-type]  # studies and trials are ints
        first = 1000 * (at + 1)
        seeds = [first + k for k in range(len(study.tune_seeds))]
        study = replace(study, tune_seeds=seeds)
        found.append(protocol(world, study, np.random.default_rng([seed, at])))
    means = np.array([one.mean for one in found])
    mean = float(means.mean())
    return Summary(
        repetitions,
        mean,
        float(means.std(ddof=1)),
        sum(one.p < difference.LEVEL for one in found) / repetitions,
        sum(one.outcome == difference.BEYOND for one in found) / repetitions,
        sum(one.outcome == difference.EQUAL for one in found) / repetitions,
        sum(one.low <= mean <= one.high for one in found) / repetitions,
        math.sqrt(0.05 * 0.95 / repetitions),
    )

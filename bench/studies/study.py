"""What an experiment declares: arms, compared under conditions by one protocol.

`study:` in conf/experiment/*.yaml. Every arm is tuned over the same rates on the validation part,
with seeds that the comparison does not use; then all arms train from the same seeds (the same
initial weights and order of the data), each at its own best rate, and are compared on the test
part. Nothing here trains or reads results.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, cast

from omegaconf import OmegaConf

from bench.settings.errors import UserError
from bench.settings.schema import CONF

TUNE, FINAL = "tune", "final"
STAGES = (TUNE, FINAL)


@dataclass(frozen=True)
class Study:
    """One experiment.

    question: what it answers, as a sentence; baseline: the arm that the others are compared with;
    conditions and arms: overrides of conf/train.yaml by name; grid: of `optimizer.lr_scale`
    (empty: nothing is tuned); tune_seeds, final_seeds: they have none in common; rates_of: an arm
    and the arm whose rate it takes instead of being tuned; rates: of `optimizer.lr_scale`, by
    arm, where they come from elsewhere; margin: of the test loss, within which two arms count as
    equal; equal_time_of: the experiment whose measured overheads say how many steps an arm gets
    in the baseline's time; limits: what the design leaves open, in words.
    """

    name: str
    question: str
    baseline: str
    conditions: dict[str, list[str]]
    arms: dict[str, list[str]]
    final_seeds: list[int]
    grid: list[float] = field(default_factory=list)
    tune_seeds: list[int] = field(default_factory=list)
    rates_of: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    margin: float | None = None
    equal_time_of: str | None = None
    limits: str | None = None

    def tuned(self) -> list[str]:
        """The arms that are tuned themselves."""
        return [a for a in self.arms if self.grid and a not in self.rates_of | self.rates]

    def again(self) -> dict[str, str]:
        """The A/A arms, which only perturb the initial weights, and the arms they repeat."""
        return {
            arm: other
            for arm, other in self.rates_of.items()
            if any(word.startswith("perturb=") for word in self.arms[arm])
        }


@dataclass(frozen=True)
class Sweep:
    """Runs of one arm under one condition that differ in rate and seed."""

    stage: str
    condition: str
    arm: str
    overrides: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]

    def arguments(self, experiment: str) -> list[str]:
        """The command line of bench/train.py that trains them."""
        part = [f"{key}={getattr(self, key)}" for key in ("stage", "condition", "arm")]
        rates = ",".join(f"{rate:g}" for rate in self.rates)
        seeds = ",".join(map(str, self.seeds))
        return [
            *("-m", f"experiment={experiment}", *part, *self.overrides),
            *(f"optimizer.lr_scale={rates}", f"seed={seeds}"),
        ]


def declared() -> list[str]:
    """The names of all experiments."""
    return sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))


def load(name: str) -> Study:
    """The experiment as its file declares it."""
    file = CONF / "experiment" / f"{name}.yaml"
    block = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file), resolve=True))
    return parse(name, block["study"])


def parse(name: str, block: dict[str, Any]) -> Study:
    """Raises UserError naming what is missing or makes no sense, and what is accepted."""
    known = {f.name for f in fields(Study)} - {"name"}
    for key in block.keys() - known:
        raise UserError(f"study.{key}: no such setting; accepted: {', '.join(sorted(known))}")
    needed = ("question", "baseline", "conditions", "arms", "final_seeds")
    for key in (key for key in needed if not block.get(key)):
        raise UserError(f"study.{key}: experiment={name} needs it")
    study = Study(name, **block)
    if study.baseline not in study.arms:
        raise UserError(f"study.baseline={study.baseline}: must be one of {', '.join(study.arms)}")
    for key in ("rates_of", "rates"):
        for arm in getattr(study, key):
            if arm not in study.arms:
                raise UserError(f"study.{key}.{arm}: must be one of {', '.join(study.arms)}")
    for arm, other in study.rates_of.items():
        if other not in study.arms or other in study.rates_of:
            raise UserError(f"study.rates_of.{arm}={other}: must be an arm with a rate of its own")
    for arm, words in study.arms.items():
        for word in words:
            if word.split("=", 1)[0] in ("train.precision", "train.device"):
                raise UserError(
                    f"study.arms.{arm}: {word}: runs that differ in it are never compared; make it "
                    f"a condition"
                )
    common = set(study.tune_seeds) & set(study.final_seeds)
    if common:
        raise UserError(
            f"study.tune_seeds={study.tune_seeds}: must have no seed of final_seeds ({common})"
        )
    if study.grid and not study.tune_seeds:
        raise UserError("study.tune_seeds: a grid needs at least one seed")
    if not all(0 < rate < math.inf for rate in study.grid) or sorted(set(study.grid)) != study.grid:
        raise UserError(f"study.grid={study.grid}: must be numbers above 0, each once, rising")
    if study.margin is not None and study.margin <= 0:
        raise UserError(f"study.margin={study.margin}: must be above 0")
    return study


def tuning(study: Study) -> Iterator[Sweep]:
    """Every tuned arm over the same rates and seeds."""
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


@dataclass(frozen=True)
class Best:
    """The rate with the lowest loss of a grid, and whether it lies at the grid's edge.

    losses: by rate, the mean over seeds; infinite where a run diverged.
    """

    rate: float
    at_edge: bool
    losses: dict[float, float]


def best(losses: dict[float, list[float | None]]) -> Best:
    """The best rate; losses: by rate, of each seed, None for a run that diverged."""
    means = {
        rate: sum(math.inf if value is None else value for value in of) / len(of)
        for rate, of in sorted(losses.items())
    }
    rate = min(means, key=means.__getitem__)
    return Best(rate, rate in (min(means), max(means)), means)


def loss(one: dict[str, Any]) -> float | None:
    """What rates are chosen by; None for a run that diverged, which ranks last."""
    return one["val_loss"] if one["status"] == "finished" else None

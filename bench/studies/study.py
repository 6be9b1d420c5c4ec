"""The declaration of an experiment: arms, compared under conditions by one protocol.

`study:` in conf/experiment/*.yaml. Every arm is tuned on the validation part with seeds that the
comparison does not use. Then all arms train from the same seeds (the same initial weights and order
of the data), each with its own best settings, and are compared on the test part. With `search` each
final seed has its own search (search.py); otherwise all arms are tuned over one grid of rates. This
module neither trains nor reads results.
"""

import functools
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from omegaconf import OmegaConf

from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.studies import search
from bench.studies.search import Search

PILOT, TUNE, FINAL = "pilot", "tune", "final"
STAGES = (PILOT, TUNE, FINAL)


@dataclass(frozen=True)
class Study:
    """One experiment.

    question: the question that it answers, as a sentence; baseline: the arm that others are
    compared with; conditions and arms: overrides of conf/train.yaml by name; grid: values of
    `optimizer.lr_scale` (empty: no tuning); tune_seeds, final_seeds: disjoint; rates_of: by arm,
    the arm whose rate or searched settings it takes instead of being tuned; rates:
    `optimizer.lr_scale` by arm, if it comes from elsewhere; search: replaces the grid, with as many
    tune_seeds as final_seeds, one study per pair; margin: the test loss within which two arms count
    as equal; equal_time_of: by condition the step benchmark, results/steps/<name>.json, that says
    how many steps an arm gets in the baseline's time; cost_of: by condition the one that says what
    a step of each arm costs, for a ranking by seconds; limits: what the design leaves open, in
    words.
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
    search: Search | None = None
    margin: float | None = None
    equal_time_of: dict[str, str] = field(default_factory=dict)
    cost_of: dict[str, str] = field(default_factory=dict)
    limits: str | None = None

    def tuned(self) -> list[str]:
        """The arms that have their own tuning."""
        tunes = self.grid or self.search
        return [a for a in self.arms if tunes and a not in self.rates_of | self.rates]

    @property
    def continues(self) -> bool:
        """Whether its runs start from given weights, and say nothing of training from scratch."""
        every = (*self.conditions.values(), *self.arms.values())
        return any(word.startswith("init_from=") for words in every for word in words)

    def again(self) -> dict[str, str]:
        """The A/A arms with the arms they repeat, with perturbed initial weights or other seeds."""
        return {
            arm: other
            for arm, other in self.rates_of.items()
            if self.offset(arm) or any(word.startswith("perturb=") for word in self.arms[arm])
        }

    def offset(self, arm: str) -> int:
        """The number added to the final seeds of an arm that repeats another one on other seeds."""
        return self.search.other_seeds.get(arm, 0) if self.search else 0

    def counts(self) -> dict[tuple[str, str, str], int]:
        """The number of runs of each stage, condition and arm."""
        found = {}
        for condition in self.conditions:
            for arm in self.tuned():
                if self.search is None:
                    found[TUNE, condition, arm] = len(self.grid) * len(self.tune_seeds)
                elif carry := self.search.carried(condition, arm):
                    tries = len(carry.tries) if carry.trains else 0
                    found[TUNE, condition, arm] = tries * len(self.tune_seeds)
                else:
                    axes = self.search.pilot.values()  # but the first, each starts at a tried point
                    found[PILOT, condition, arm] = sum(map(len, axes)) - len(axes) + 1
                    found[TUNE, condition, arm] = self.search.trials * len(self.tune_seeds)
            for arm in self.arms:
                found[FINAL, condition, arm] = len(self.final_seeds)
        return found


def declared() -> list[str]:
    """The names of all experiments."""
    return sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))


@functools.cache
def starts() -> frozenset[str]:
    """The experiments that are run for their weights, which others start from."""
    studies = (load(name) for name in declared())
    words = (
        w for one in studies for own in (*one.conditions.values(), *one.arms.values()) for w in own
    )
    given = (word.partition("=") for word in words)
    return frozenset(path.split("/")[0] for key, _, path in given if key == "init_from")


def load(name: str) -> Study:
    """The experiment that a file declares."""
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
    searched = block.get("search")
    study = Study(name, **{**block, "search": None})
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
    if searched:
        study = replace(study, search=_parsed_search(study, searched))
    if study.grid and not study.tune_seeds:
        raise UserError("study.tune_seeds: a grid needs at least one seed")
    if not all(0 < rate < math.inf for rate in study.grid) or sorted(set(study.grid)) != study.grid:
        raise UserError(f"study.grid={study.grid}: must be numbers above 0, each once, rising")
    if study.equal_time_of and set(study.equal_time_of) != set(study.conditions):
        raise UserError(f"study.equal_time_of: must have exactly {', '.join(study.conditions)}")
    for condition in study.cost_of.keys() - study.conditions.keys():
        raise UserError(f"study.cost_of.{condition}: must be one of {', '.join(study.conditions)}")
    if study.margin is not None and study.margin <= 0:
        raise UserError(f"study.margin={study.margin}: must be above 0")
    return study


def _parsed_search(study: Study, block: dict[str, Any]) -> Search:
    if study.grid or study.rates:
        raise UserError("study.search: takes the place of study.grid and study.rates")
    if not study.tune_seeds or len(study.tune_seeds) != len(study.final_seeds):
        raise UserError(
            f"study.tune_seeds={study.tune_seeds}: a search needs one for each of final_seeds="
            f"{study.final_seeds}"
        )
    for word in (
        word for of in (study.conditions, study.arms) for own in of.values() for word in own
    ):
        if word.startswith("schedule.warmup"):
            raise UserError(f"study.search: searches the warm-up, which {word} sets")
    arms = [arm for arm in study.arms if arm not in study.rates_of]
    found = search.parse(block, list(study.conditions), arms)
    for arm in found.other_seeds:
        if arm not in study.rates_of:
            raise UserError(
                f"study.search.other_seeds.{arm}: must be one of {', '.join(study.rates_of)}"
            )
    return found


@dataclass(frozen=True)
class Best:
    """The rate with the lowest loss in a grid, and whether it lies at the grid's edge.

    losses: the mean over seeds by rate; infinite if a run diverged.
    """

    rate: float
    at_edge: bool
    losses: dict[float, float]


def best(losses: dict[float, list[float | None]]) -> Best:
    """The best rate; losses: by rate, one per seed, None for a run that diverged."""
    means = {
        rate: sum(math.inf if value is None else value for value in of) / len(of)
        for rate, of in sorted(losses.items())
    }
    rate = min(means, key=means.__getitem__)
    return Best(rate, rate in (min(means), max(means)), means)


def loss(one: dict[str, Any]) -> float | None:
    """The loss that rates are chosen by; None for a run that diverged, which ranks last."""
    return one["val_loss"] if one["status"] == "finished" else None

"""`study.search`: independent studies of equally many trials for every arm.

An arm's quality is what it reaches when tuned with so many trials: AlgoPerf's estimand (Dahl et al.
2023, arXiv 2306.07179, section 4). Each study draws its own trials from a box around the arm's
centre and trains them from its own tuning seed. It then trains the best trial once more from a
fresh seed, shared with the same study of the other arms. The differences between these runs are the
data: they vary with the luck of the search as well as with that of the seed. With
many final seeds of one search, that search's luck would make identical optimizers look different.

The centre comes from a pilot of equal size for each arm: one coordinate at a time, one seed.
"""

import math
import zlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy  # imports lazily: a single training run needs none of it

from bench.settings.errors import UserError
from bench.studies.axes import AXES, KINDS, Point


@dataclass(frozen=True)
class Carried:
    """A condition that is tuned from the trials of another: `source`, a condition of this
    experiment, or experiment/condition of another one.

    tries: pairs of a trial's rank there, from 1, and the factor on its rate; if only the best is
    listed, it is taken without a trial. gain: by how many nats another try must beat the first one
    to replace it. rates_as: a condition of this experiment whose factor on its source's rate is
    applied here, too.
    """

    source: str
    tries: list[list[float]]
    gain: float = 0.0
    rates_as: str | None = None

    @property
    def trains(self) -> bool:
        return self.tries != [[1, 1]]


@dataclass(frozen=True)
class Search:
    """trials: number per study; pilot_seed: of all pilots; pilot: by kind of axis the values that
    pilots try, in multiples of the centre, one kind after another; widths: by kind the ratio of an
    axis's upper end to its lower end; centres: by arm the axes of its search and the pilot's start;
    carry: conditions that are tuned from another one's trials; takes: by arm the arm of another
    experiment whose trials it borrows, while an arm with a centre searches; other_seeds: by arm the
    number added to the final seeds, for arms that repeat another one with a different order of data
    and initial weights.
    """

    trials: int
    pilot_seed: int
    pilot: dict[str, list[float]]
    widths: dict[str, float]
    centres: dict[str, Point]
    carry: dict[str, Carried]
    takes: dict[str, str]
    other_seeds: dict[str, int]

    def carried(self, condition: str, arm: str) -> Carried | None:
        """Where an arm's trials under a condition come from; None if it is searched there."""
        return None if self.takes and arm in self.centres else self.carry.get(condition)

    def points(self, arm: str, centre: Point, seed: int) -> list[Point]:
        """The trials of one study: a scrambled Sobol sequence in the box around the centre.

        The scramble depends on the study and the arm, so that no two of them share their luck.
        """
        generator = np.random.default_rng([seed, zlib.crc32(arm.encode())])
        sobol = scipy.stats.qmc.Sobol(len(centre), scramble=True, rng=generator)
        unit = sobol.random_base2(math.ceil(math.log2(self.trials)))[: self.trials]
        return [
            {
                axis: value * self.widths[AXES[axis].kind] ** (at - 0.5)
                for (axis, value), at in zip(centre.items(), row, strict=True)
            }
            for row in unit
        ]

    def place(self, axis: str, value: float, centre: float) -> float:
        """The position of a value in its range: 0 at the lower end, 1 at the upper one."""
        return 0.5 + math.log(value / centre) / math.log(self.widths[AXES[axis].kind])


def parse(block: dict[str, Any], conditions: list[str], arms: list[str]) -> Search:
    """Raises UserError naming what is missing or makes no sense, and what is accepted.

    arms: the arms that are searched.
    """
    known = [f.name for f in fields(Search)]
    for key in block.keys() - set(known):
        raise UserError(f"study.search.{key}: no such setting; accepted: {', '.join(known)}")
    borrows = bool(block.get("takes"))
    defaults: dict[str, Any] = {"carry": {}, "takes": {}, "other_seeds": {}}
    if borrows and not block.get("centres"):
        defaults |= {"trials": 1, "pilot_seed": 0, "pilot": {}, "widths": {}, "centres": {}}
    whole = defaults | block
    for key in (key for key in known if whole.get(key) is None):
        raise UserError(f"study.search.{key}: is missing")
    if whole["trials"] < 1:
        raise UserError(f"study.search.trials={whole['trials']}: must be at least 1")
    _check_kinds("pilot", whole["pilot"])
    _check_kinds("widths", whole["widths"])
    for kind, factors in whole["pilot"].items():
        if 1 not in factors:
            raise UserError(f"study.search.pilot.{kind}={factors}: must have 1, the centre itself")
    if sorted([*whole["centres"], *whole["takes"]]) != sorted(arms):
        raise UserError(
            f"study.search.centres, study.search.takes: must have exactly {', '.join(arms)}, each "
            f"in one of them"
        )
    _check_centres(whole)
    carry = {
        condition: _carried(condition, one, whole, conditions)
        for condition, one in whole["carry"].items()
    }
    if borrows and set(carry) != set(conditions):
        raise UserError(f"study.search.carry: must have exactly {', '.join(conditions)}")
    return Search(**{**whole, "carry": carry})


def _check_centres(whole: dict[str, Any]) -> None:
    """Raise UserError unless every arm that searches has one axis of each kind, with a width."""
    for arm, centre in whole["centres"].items():
        for axis, value in centre.items():
            if axis not in AXES:
                raise UserError(
                    f"study.search.centres.{arm}.{axis}: must be one of {', '.join(AXES)}"
                )
            if not value > 0:
                raise UserError(f"study.search.centres.{arm}.{axis}={value}: must be above 0")
    kinds = {arm: sorted(AXES[a].kind for a in centre) for arm, centre in whole["centres"].items()}
    for arm, own in kinds.items():
        name, first = next(iter(kinds.items()))
        if own != first or len(set(own)) != len(own):
            raise UserError(
                f"study.search.centres.{arm}: its axes are {', '.join(own)}, those of {name} "
                f"{', '.join(first)}; every arm needs one of each kind"
            )
        if "rate" not in own or not set(own) <= whole["widths"].keys():
            raise UserError(f"study.search.widths: must have {', '.join(sorted({*own, 'rate'}))}")


def _carried(
    condition: str, one: dict[str, Any], whole: dict[str, Any], conditions: list[str]
) -> Carried:
    where, known = f"study.search.carry.{condition}", [f.name for f in fields(Carried)]
    for key in one.keys() - set(known):
        raise UserError(f"{where}.{key}: no such setting; accepted: {', '.join(known)}")
    source, tries = str(one.get("source")), one.get("tries")
    other = bool(whole["takes"])
    own = [c for c in conditions if c not in whole["carry"]]
    if condition not in conditions or (other and source.count("/") != 1):
        raise UserError(f"{where}.source={source}: must be another experiment/condition")
    if not other and source not in own:
        raise UserError(
            f"{where}.source={source}: must be a condition that is searched itself: "
            f"{', '.join(own)}"
        )
    most = math.inf if other else whole["trials"]
    if not tries or any(len(t) != 2 or not 1 <= t[0] <= most or not t[1] > 0 for t in tries):
        raise UserError(
            f"{where}.tries={tries}: must be pairs of a rank from 1 to {most} and a factor on the "
            f"rate"
        )
    if one.get("rates_as") not in (None, *conditions):
        raise UserError(
            f"{where}.rates_as={one['rates_as']}: must be one of {', '.join(conditions)}"
        )
    return Carried(**{**one, "source": source})


def _check_kinds(setting: str, block: dict[str, Any]) -> None:
    for kind in block.keys() - set(KINDS):
        raise UserError(f"study.search.{setting}.{kind}: must be one of {', '.join(KINDS)}")

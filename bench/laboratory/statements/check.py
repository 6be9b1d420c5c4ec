"""A statement put to the test: what a check says, and the words and sizes that checks share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from optimizers.coefficients import SETS

Array = NDArray[np.float64]
Spectra = dict[tuple[int, int], Array]  # by shape

STEPS = 5
NAMES = (*SETS, "polar_express")
CONFIRMED, REFUTED, DEPENDS, OPEN = "confirmed", "refuted", "depends", "open"
NOTES_A, NOTES_B = "Notes A", "Notes B"
DOCSTRING = f"{NOTES_B}; Keller Jordan, docstring of zeropower_via_newtonschulz5"


@dataclass(frozen=True)
class Check:
    """A statement and what was measured: value with its range (95 % interval, or over cases).

    n: of what the value is a mean or an extreme; condition: the rule of the verdict, and what else
    a reader has to know; source: who says so.
    """

    name: str
    statement: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    verdict: str
    condition: str
    source: str


class Over(TypedDict):
    """The part of a Check that `over` gives."""

    value: float
    low: float
    high: float
    n: int


def over(values: Sequence[float]) -> Over:
    """What a Check says of several cases alike: their median, extremes and number."""
    return Over(value=float(np.median(values)), low=min(values), high=max(values), n=len(values))


def verdict(confirmed: bool, refuted: bool) -> str:
    """The verdict of a rule with two ends; what lies between depends."""
    return CONFIRMED if confirmed else REFUTED if refuted else DEPENDS


def unanswered(name: str, statement: str, reason: str, source: str) -> Check:
    """What could not be measured, and why."""
    return Check(name, statement, None, None, None, 0, "", OPEN, reason, source)

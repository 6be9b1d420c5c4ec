"""The check of a statement: its result, and the words and sizes that checks share."""

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
    """A statement and its measurement: a value with its range (95 % interval, or over cases).

    n: the number of items behind the value, a mean or an extreme; condition: the rule of the
    verdict, and notes for readers; source: who states it.
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
    """The summary of several equal cases: their median, extremes and number."""
    return Over(value=float(np.median(values)), low=min(values), high=max(values), n=len(values))


def verdict(confirmed: bool, refuted: bool) -> str:
    """The verdict of a rule with two ends; in between it depends."""
    return CONFIRMED if confirmed else REFUTED if refuted else DEPENDS


def unanswered(name: str, statement: str, reason: str, source: str) -> Check:
    """A check that could not be measured, with the reason."""
    return Check(name, statement, None, None, None, 0, "", OPEN, reason, source)

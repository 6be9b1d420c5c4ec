"""Newton-Schulz on one singular value: the scalar recursion (numpy, fp64).

A step with the triple (a, b, c) maps s to g(s) = a s + b s^3 + c s^5; T steps give g_T(...g_1(s)).
Except for rounding, iterating a matrix means this recursion on its singular values.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Triple = Sequence[float]

# No set in use maps a value of [0, 1] above 2; above 100 the fifth power dominates.
ESCAPED = 100.0


class Estimate(NamedTuple):
    """A mean with its 95 % interval, whose ends are nan if there is only one sample."""

    mean: float
    low: float
    high: float


def steps(s: ArrayLike, triples: Sequence[Triple]) -> Iterator[NDArray[np.float64]]:
    """The values after each step; infinities and nan give no warning."""
    x = np.asarray(s, dtype=np.float64)
    for a, b, c in triples:
        with np.errstate(all="ignore"):
            square = x * x
            x = x * (a + square * (b + square * c))
        yield x


def iterate(s: ArrayLike, triples: Sequence[Triple]) -> NDArray[np.float64]:
    """The values after all steps: g_T(...g_1(s)), with the shape of s."""
    x = np.asarray(s, dtype=np.float64)
    for x in steps(s, triples):  # noqa: B007
        pass
    return x


def diverged_at(s: ArrayLike, triples: Sequence[Triple]) -> int | None:
    """The first step (from 1) after which a value is not finite or is above 100, if any."""
    for number, x in enumerate(steps(s, triples), start=1):
        if not (np.abs(x) <= ESCAPED).all():
            return number
    return None


def slope_at_zero(triples: Sequence[Triple]) -> float:
    """The derivative of the whole iteration at 0: the product of the a's."""
    return math.prod(a for a, _, _ in triples)


def image(low: float, high: float, triples: Sequence[Triple]) -> tuple[float, float]:
    """The exact range of the whole iteration over all inputs in [low, high].

    A step maps an interval onto the interval between its extremes. These lie at the ends or where
    the derivative a + 3 b x^2 + 5 c x^4 is zero, so no grid is needed.
    """
    for triple in triples:
        points = [low, high, *(x for x in _turning_points(triple) if low < x < high)]
        values = iterate(points, [triple])
        if not (np.abs(values) <= ESCAPED).all():
            return -math.inf, math.inf
        low, high = float(values.min()), float(values.max())
    return low, high


def threshold(triples: Sequence[Triple], low: float, high: float) -> float | None:
    """The smallest input from which all larger inputs, up to 1, end in [low, high].

    None if not even 1 does; 0 if all inputs do. By bisection on `image`, to 12 digits.
    """

    def inside(start: float) -> bool:
        bottom, top = image(start, 1.0, triples)
        return low <= bottom and top <= high

    if not inside(1.0):
        return None
    if inside(0.0):
        return 0.0
    outer, inner = -700.0, 0.0  # logarithms; e^-700 is near the smallest positive number
    while inner - outer > 1e-12:
        middle = (outer + inner) / 2
        outer, inner = (outer, middle) if inside(math.exp(middle)) else (middle, inner)
    return math.exp(inner)


def mse(s: ArrayLike, triples: Sequence[Triple]) -> Estimate:
    """Mean (g_T(s) - 1)^2 over spectra (rows) with its 95 % interval over the rows.

    Zero singular values are left out, because msign and the iteration keep them zero. The interval
    is Student's for the rows' means: the values within a row are not independent.
    """
    rows = np.atleast_2d(np.asarray(s, dtype=np.float64))
    with np.errstate(all="ignore"):
        errors = (iterate(rows, triples) - 1) ** 2
        means = np.mean(errors, axis=1, where=rows > 0)
        return estimate(means)


def estimate(values: ArrayLike) -> Estimate:
    """The mean of independent values and Student's 95 % interval for it."""
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    if len(x) < 2 or not math.isfinite(mean):
        return Estimate(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Estimate(mean, mean - half, mean + half)


def _turning_points(triple: Triple) -> list[float]:
    a, b, c = triple
    inner = 9 * b * b - 20 * a * c
    if inner < 0:
        return []
    q = -(3 * b + math.copysign(math.sqrt(inner), b)) / 2  # no cancellation for any signs
    squares = [top / bottom for top, bottom in ((q, 5 * c), (a, q)) if bottom != 0]
    return [sign * math.sqrt(square) for square in squares if square > 0 for sign in (-1, 1)]

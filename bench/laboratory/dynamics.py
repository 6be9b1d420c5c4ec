"""One triple applied repeatedly: where small inputs end, and which triple is steepest.

Scaling s -> k s turns (a, b, c) into (a, b k^2, c k^4) and changes nothing else, so the fate of
small inputs depends on only two numbers. The two used here are the slope at zero, a, and the slope
mu at the smallest positive fixed point, which attracts if |mu| < 1. The third number, the fixed
point, gives the size of the final values.

The claim "the slope at zero is maximised subject to stability" is solved in three readings:
bounded: no input of [0, 1] leaves [-1, 1] (or [0, 1]);
stay: every input of (0, 1] enters [1 - e, 1 + e] and never leaves it again;
limit: every input of (0, 1] ends in [1 - e, 1 + e] after any number of steps, which is what
    Keller Jordan's own derivation requires (https://kellerjordan.github.io/posts/muon/).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from bench.laboratory import recursion
from bench.laboratory.search import fixed_points
from optimizers.coefficients import KELLER, SU, TAYLOR, Triple

Array = NDArray[np.float64]

KINDS = ("escapes", "changes sign", "one value", "two values", "more values")
ESCAPES, CHANGES_SIGN, ONE, TWO, MORE = range(5)
STARTS = np.array([1e-3, 0.05, 0.13, 0.29, 0.41, 0.53, 0.67, 0.79, 0.88, 0.95, 1.0])
TRANSIENT, WATCHED = 300, 128  # steps before the values are watched, and steps while they are
SETTLED = 1e-3


class Place(NamedTuple):
    """A triple on the map: slope at 0, slope at the smallest positive fixed point, fixed point."""

    slope: float
    multiplier: float
    fixed_point: float


class LongRun(NamedTuple):
    """The fate of small inputs: an index into KINDS, and the least and the largest value."""

    kind: NDArray[np.int64]
    low: Array
    high: Array

    @property
    def epsilon(self) -> Array:
        """The least e for which some scale puts all values in [1 - e, 1 + e]; nan without one."""
        with np.errstate(all="ignore"):
            spread = (self.high - self.low) / (self.high + self.low)
        return np.where(self.kind >= ONE, spread, np.nan)


def place(triple: Triple) -> Place | None:
    """None for a triple without a positive fixed point."""
    points = fixed_points(triple)
    if not points:
        return None
    a, b, c = triple
    y = points[0] ** 2
    return Place(a, a + 3 * b * y + 5 * c * y * y, points[0])


def triple_at(slope: Any, multiplier: Any, fixed_point: Any = 1.0) -> tuple[Any, Any, Any]:
    """The inverse of `place`; arrays broadcast."""
    c = (multiplier + 2 * slope - 3) / 2
    return slope, (1 - slope - c) / fixed_point**2, c / fixed_point**4


def long_run(a: Any, b: Any, c: Any) -> LongRun:
    """For arrays of triples of one shape: iterates inputs up to the first turning point.

    All smaller inputs pass through that range; the second turning point is added if they reach it.
    """
    a, b, c = np.broadcast_arrays(*(np.asarray(k, dtype=np.float64) for k in (a, b, c)))

    def step(x: Array) -> Array:
        y = x * x
        return x * (a + y * (b + y * c))

    with np.errstate(all="ignore"):
        root = np.sqrt(9 * b * b - 20 * a * c)
        first = np.sqrt(2 * a / (-3 * b + root))  # stable where c is 0
        first = np.where(first > 0, first, 0.1 / np.sqrt(np.abs(b) + np.abs(c)))  # g only rises
        second = np.sqrt((-3 * b + root) / (10 * c))
        second = np.where((second > first) & (second < step(first)), second, first)
        x = np.concatenate([first * STARTS.reshape(-1, *[1] * a.ndim), second[None]])
        for _ in range(TRANSIENT):
            x = step(x)
        low, high, before = x.copy(), x.copy(), step(x)
        moved, moved_by_two = np.zeros_like(x), np.zeros_like(x)
        last = x
        for _ in range(WATCHED):
            x = step(before)
            moved = np.maximum(moved, np.abs(before - last))
            moved_by_two = np.maximum(moved_by_two, np.abs(x - last))
            low, high = np.minimum(low, before), np.maximum(high, before)
            last, before = before, x
        kind = np.full(a.shape, MORE)
        kind[(moved_by_two < SETTLED * high).all(axis=0)] = TWO
        kind[(moved < SETTLED * high).all(axis=0)] = ONE
        kind[~(low > 0).all(axis=0)] = CHANGES_SIGN
        kind[~(high < recursion.ESCAPED).all(axis=0) | ~np.isfinite(x).all(axis=0)] = ESCAPES
    return LongRun(kind, low.min(axis=0), high.max(axis=0))


def steepest(lower: Array, upper: Array, x: Array) -> Triple:
    """The triple with the largest slope at 0 for which lower <= g(x) <= upper at all points x.

    A linear programme in (a, b, c).
    """
    powers = np.stack([x, x**3, x**5], axis=1)
    found = optimize.linprog(
        [-1, 0, 0],
        A_ub=np.concatenate([powers, -powers]),
        b_ub=np.concatenate([upper, -lower]),
        bounds=(None, None),
    )
    return tuple(found.x.tolist())


def steepest_bounded(both_signs: bool, points: int = 4001) -> Triple:
    """The steepest triple whose g maps [0, 1] into [-1, 1], or into [0, 1].

    The bounds are slightly narrowed, so that rounding and the grid do not cross them.
    """
    x = np.linspace(0, 1, points)
    lower = -np.ones(points) if both_signs else 1e-3 * x
    return steepest(lower * (1 - 1e-6), np.full(points, 1 - 1e-6), x)


def steepest_staying(epsilon: float, points: int = 4001) -> Triple:
    """The steepest with [1 - e, 1 + e] mapped into itself and smaller inputs rising into it."""
    x = np.linspace(0, 1 + epsilon, points)
    lower = np.where(x < 1 - epsilon, x, 1 - epsilon)
    return steepest(lower, np.full(points, 1 + epsilon), x)


def steepest_ending(epsilon: float) -> Triple:
    """The steepest for which every input of (0, 1] ends in [1 - e, 1 + e]: the best on a grid or
    the one that stays there, so the slope is a lower bound."""
    stays = steepest_staying(epsilon)
    slopes = np.arange(stays[0], stays[0] + 0.5, 0.01)
    a, mu = np.meshgrid(slopes, np.arange(-5.5, 1.0, 0.02))
    found = long_run(*triple_at(a, mu))
    fine = found.epsilon <= epsilon  # false for nan
    if not fine.any():
        return stays
    column = int(np.flatnonzero(fine.any(axis=0)).max())
    row = int(np.flatnonzero(fine[:, column])[0])
    middle = 2 / (found.low[row, column] + found.high[row, column])  # centres the band at 1
    ends = triple_at(slopes[column], mu[row, column], middle)
    a, b, c = map(float, ends)
    return a, b, c


def epsilon_of_slope(slope: float) -> float:
    """The e for which `steepest_staying` has this slope."""
    above = lambda e: steepest_staying(e)[0] - slope  # noqa: E731
    return float(optimize.brentq(above, 1e-3, 0.999, xtol=1e-6))


def epsilon_after(triple: Triple, low: float, steps: int) -> float:
    """The least e for which inputs of [low, 1] end in [1 - e, 1 + e] after `steps`."""
    bottom, top = recursion.image(low, 1.0, [triple] * steps)
    return max(top - 1, 1 - bottom)


def tightest(low: float, steps: int) -> tuple[float, Triple]:
    """The triple with the least e for which [low, 1] ends in [1 - e, 1 + e] after `steps`.

    Found by Nelder and Mead's method from several triples, so e is an upper bound.
    """

    def error(p: Array) -> float:
        return min(epsilon_after(tuple(p), low, steps), 1e3)

    starts = [KELLER, SU, TAYLOR, *(steepest_staying(e) for e in (0.05, 0.2, 0.4))]
    options = {"xatol": 1e-7, "fatol": 1e-9, "maxfev": 3000, "adaptive": True}
    ends = []
    for start in starts:
        p = np.array(start)
        for _ in range(3):  # restarts, because the method can stall
            found = optimize.minimize(error, p, method="Nelder-Mead", options=options)
            p = found.x
        ends.append(found)
    best = min(ends, key=lambda end: end.fun)
    return float(best.fun), tuple(best.x.tolist())

"""Searches the best coefficients for given spectra: one triple for all steps or one per step.

Three kinds, for T steps on singular values s divided by their 2-norm:
single: one triple with the least mean (g^T(s) - 1)^2 (objective of Su Jianlin,
    kexue.fm/archives/10592) and no other condition: for few steps it only fits values that occur
    in the spectra. The best triple for three steps on Gaussian spectra, which have no value near
    1, maps a matrix of rank one to 1e10; a fit's `top` shows this.
bounded: the same with a condition outside the spectra: no input of [0, 1] ends above a ceiling.
minimax: one triple per step with the least max |g_T(s) - 1| over [low, 1]. Each is the best quintic
    for the present range of the values, which is optimal (Polar Express, arXiv 2505.16932, theorem
    3.1). `low` is chosen for the least mean (g_T(s) - 1)^2.
One triple per step by least squares is not offered: bounded on all of [0, 1], 12 starts ended in
nearly as many local optima, and none was better than minimax.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from bench.laboratory import recursion
from optimizers.coefficients import KELLER, SU, TAYLOR, Triple, polar_express

NODES = 4096  # quantiles that represent all values: changes a fit by 1e-6; its error is 2e-4
CEILING = 1.5  # of bounded fits: the top of the band that Keller Jordan accepts
INPUTS = np.concatenate([np.geomspace(1e-3, 1, 400), np.linspace(0.002, 1, 500)])  # kept below it
WEIGHT = 10.0  # of the mean square excess over the ceiling, relative to the mean square error
SAME_OPTIMUM = 1e-6  # relative difference of objectives
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """A set, and how reliable it is.

    triples: one, or one per step; mse: mean (g_T(s) - 1)^2 on the fitted spectra; low, high: the
    range of inputs that counted; top: the largest final value of any input of [0, 1]; starts:
    number tried; agreeing: how many of them ended at the same, best objective; certain: see each
    search. All but minimax also have: spread, the largest difference of a coefficient among the
    agreeing; condition, that of the objective's Hessian, infinite if it is not positive definite;
    errors, one standard error of a, b and c from sampling the spectra, infinite for one spectrum.
    """

    triples: list[Triple]
    mse: float
    low: float
    high: float
    top: float
    starts: int
    agreeing: int
    certain: bool
    spread: float | None = None
    condition: float | None = None
    errors: list[float] | None = None


def from_fixed_points(kappa: float, x1: float, x2: float) -> Triple:
    """The triple of g(x) = x + kappa x (x^2 - x1^2)(x^2 - x2^2), with fixed points x1 and x2."""
    return 1 + kappa * (x1 * x2) ** 2, -kappa * (x1 * x1 + x2 * x2), kappa


def peaked(slope: float, place: float, height: float) -> Triple:
    """The triple with this slope at zero and a turning point at (place, height)."""
    rise = slope * place
    return slope, (2.5 * height - 2 * rise) / place**3, (rise - 1.5 * height) / place**5


def fixed_points(triple: Triple) -> list[float]:
    """The positive fixed points of g, ascending: none, one or two."""
    a, b, c = triple
    squares = np.roots([c, b, a - 1])
    squares = np.sort(squares[np.isreal(squares)].real)
    return np.sqrt(squares[squares > 0]).tolist()


def nodes(spectra: Array, count: int = NODES) -> Array:
    """Quantiles of all nonzero singular values, which represent the sample."""
    values = spectra[spectra > 0]
    count = min(count, len(values))
    return np.quantile(values, (np.arange(count) + 0.5) / count)


@dataclass(frozen=True)
class Objective:
    """The objective of a search for one triple: the mean (g^T(s) - 1)^2 of the values s plus, if
    there is a ceiling, the weighted mean square excess of inputs of [0, 1] over it."""

    values: Array
    steps: int
    ceiling: float | None = None

    def residuals(self, p: Array) -> Array:
        """The terms whose squares are summed."""
        a, b, c = p
        errors = recursion.iterate(self.values, [(a, b, c)] * self.steps) - 1
        errors /= np.sqrt(len(errors))
        if self.ceiling is None:
            return errors
        ends = recursion.iterate(INPUTS, [(a, b, c)] * self.steps)
        excess = np.maximum(ends - self.ceiling, 0)
        return np.concatenate([errors, excess * np.sqrt(WEIGHT / len(INPUTS))])

    def jacobian(self, p: Array) -> Array:
        """The Jacobian of the residuals: (values, 3)."""
        of_errors = _slopes(p, self.values, self.steps)[1] / np.sqrt(len(self.values))
        if self.ceiling is None:
            return of_errors
        ends, by_p = _slopes(p, INPUTS, self.steps)
        of_excess = np.where(ends[:, None] > self.ceiling, by_p, 0)
        return np.concatenate([of_errors, of_excess * np.sqrt(WEIGHT / len(INPUTS))])

    def hessian(self, p: Array) -> Array:
        """The Hessian, by central differences of the gradient."""

        def gradient(q: Array) -> Array:
            return 2 * self.jacobian(q).T @ self.residuals(q)

        shifts = np.diag(1e-5 * np.maximum(1, np.abs(p)))
        rows = [(gradient(p + h) - gradient(p - h)) / (2 * h.sum()) for h in shifts]
        return (np.array(rows) + np.array(rows).T) / 2

    def descend(self, start: Array) -> tuple[float, Array]:
        """Least squares from `start`: (objective, triple); never worse, infinite if it blows up."""
        if not np.isfinite(self.residuals(start)).all():
            return np.inf, start
        with np.errstate(all="ignore"):  # a trial step that blows up is shortened
            found = optimize.least_squares(
                self.residuals, start, self.jacobian, xtol=1e-11, ftol=1e-13, gtol=1e-13
            )
        return float(2 * found.cost), found.x


def single(
    spectra: Array,
    steps: int,
    starts: int,
    seed: int,
    ceiling: float | None = None,
    known: Iterable[Triple] = (),
) -> Fit:
    """The best triple for all steps, for these spectra (rows, each of norm 1).

    With a ceiling: bounded. known: additional starting triples, for example from an earlier fit;
    the result is never worse than these. Certain if at least three starts agree and the Hessian is
    positive definite.
    """
    objective = Objective(nodes(spectra), steps, ceiling)
    begin = [*map(np.array, known), *_starts(starts, seed)]
    ends = [objective.descend(start) for start in begin]
    best, p = min(ends, key=lambda end: end[0])
    same = np.array([q for other, q in ends if other <= best * (1 + SAME_OPTIMUM)])
    hessian = objective.hessian(p)
    eigenvalues = np.linalg.eigvalsh(hessian)
    definite = bool(eigenvalues[0] > 0)
    triple = (float(p[0]), float(p[1]), float(p[2]))
    return Fit(
        triples=[triple],
        mse=recursion.mse(spectra, [triple] * steps).mean,
        low=float(spectra[spectra > 0].min()),
        high=float(spectra.max()),
        top=recursion.image(0.0, 1.0, [triple] * steps)[1],
        starts=len(begin),
        agreeing=len(same),
        certain=definite and len(same) >= 3,
        spread=float(np.ptp(same, axis=0).max()),
        condition=float(eigenvalues[-1] / eigenvalues[0]) if definite else np.inf,
        errors=_standard_errors(spectra, p, steps, hessian).tolist(),
    )


def minimax(spectra: Array, steps: int, starts: int, safety: float = 1.0) -> Fit:
    """The best triple per step on [low, 1], with the best low for these spectra.

    For a given low there is a single optimum; `starts` values of low are tried, and the best is
    refined. Certain if only one of them is a local optimum. safety: as in `polar_express`.
    """
    values = nodes(spectra)

    def triples(log_low: float) -> list[Triple]:
        return list(polar_express(steps, float(np.exp(log_low)), cushion=0.0, safety=safety))

    def error(log_low: float) -> float:
        return recursion.mse(values, triples(log_low)).mean

    grid = np.linspace(np.log(1e-6), np.log(0.5), starts)
    errors = np.array([error(log_low) for log_low in grid])
    optima = np.flatnonzero((errors[1:-1] < errors[:-2]) & (errors[1:-1] < errors[2:]))
    best, step = grid[errors.argmin()], grid[1] - grid[0]
    bounds = (best - step, best + step)
    log_low = float(optimize.minimize_scalar(error, bounds=bounds, method="bounded").x)
    found = triples(log_low)
    return Fit(
        triples=found,
        mse=recursion.mse(spectra, found).mean,
        low=float(np.exp(log_low)),
        high=1.0,
        top=recursion.image(0.0, 1.0, found)[1],
        starts=starts,
        agreeing=starts if len(optima) == 1 else 1,
        certain=len(optima) == 1,
    )


def _starts(count: int, seed: int) -> Iterator[Array]:
    """The starting points: Su's own, published triples, then random ones.

    Every other random one has its fixed points about 1; the rest may be steeper than any triple
    with such fixed points is on [0, 1].
    """
    rng = np.random.default_rng(seed)
    yield np.array(from_fixed_points(1.0, 0.9, 1.1))
    yield from map(np.array, (KELLER, SU, TAYLOR)[: max(0, count - 1)])
    for i in range(count - 4):
        if i % 2 == 0:
            yield np.array(from_fixed_points(*rng.uniform((0.5, 0.7, 1.0), (4.0, 1.0, 1.4))))
        else:
            yield np.array(peaked(*rng.uniform((2.0, 0.3, 0.9), (8.0, 1.3, 1.4))))


def _slopes(p: Array, s: Array, steps: int) -> tuple[Array, Array]:
    """g^T(s), and its derivatives by a, b and c (values, 3), by the chain rule over the steps."""
    a, b, c = p
    x, by_p = s, np.zeros((len(s), 3))
    for _ in range(steps):
        y = x * x
        by_x = a + y * (3 * b + 5 * c * y)
        by_p = by_p * by_x[:, None] + np.stack([x, x * y, x * y * y], axis=1)
        x = x * (a + y * (b + c * y))
    return x, by_p


def _standard_errors(spectra: Array, p: Array, steps: int, hessian: Array) -> Array:
    """Standard errors of a, b and c, with whole spectra as the independent samples.

    The sandwich H^-1 cov(gradients) H^-1 / samples of M-estimation: Huber, Robust Statistics
    (1981), section 6.3.
    """
    if len(spectra) < 2:
        return np.full(3, np.inf)
    gradients = []
    for row in spectra:
        end, by_p = _slopes(p, row[row > 0], steps)
        gradients.append(2 * by_p.T @ (end - 1) / len(end))
    bread = np.linalg.pinv(hessian)
    return np.sqrt(np.diag(bread @ np.cov(np.array(gradients).T) @ bread) / len(gradients))

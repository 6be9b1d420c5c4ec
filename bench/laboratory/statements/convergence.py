"""Statements on convergence: that of the Taylor set, and the effect of a large slope at zero."""

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

from bench.laboratory import dynamics, recursion, search
from bench.laboratory.statements.check import NAMES, NOTES_B, STEPS, Array, Check, verdict
from optimizers.coefficients import TAYLOR, Triple, per_step

# Larger slopes are steep: hardly any triple keeps all values within a tenth of 1 there
# (dynamics.steepest_staying(0.1) has 3.10), and from 3.34 on none converges to 1.
STEEP = 3.0


def taylor_converges(rows: Array) -> Check:
    """After three times the number of steps that lifts the smallest value to 1."""
    steps = 3 * math.ceil(-math.log(rows[rows > 0].min()) / math.log(TAYLOR[0]))
    error = float(np.abs(recursion.iterate(rows[rows > 0], [TAYLOR] * steps) - 1).max())
    return Check(
        name="taylor_converges",
        statement="the theoretical coefficients converge to the exact factor",
        value=error,
        low=0.0,
        high=error,
        n=len(rows),
        unit="largest |s-1| of all spectra",
        verdict=verdict(error < 1e-12, error >= 1e-12),
        condition=f"after {steps} steps in fp64, Gaussian, {rows.shape[1]} singular values; "
        "confirmed below 1e-12",
        source=NOTES_B,
    )


def taylor_steps(rows: Array, tolerance: float, kind: str) -> Check:
    """The number of steps until every singular value of a matrix is within `tolerance` of 1."""
    x, needed = rows, np.zeros(len(rows), dtype=int)
    frobenius = np.zeros(len(rows), dtype=int)
    step = 0
    while not (needed > 0).all():
        x, step = recursion.iterate(x, [TAYLOR]), step + 1
        error = np.abs(x - 1)
        needed[(needed == 0) & (error.max(axis=1) <= tolerance)] = step
        near = np.sqrt(np.mean(error**2, axis=1)) <= tolerance
        frobenius[(frobenius == 0) & near] = step
    low, high = np.quantile(needed, (0.025, 0.975))
    return Check(
        name=f"taylor_steps_{tolerance:g}_{kind.split()[0].lower()}",
        statement="the theoretical coefficients converge slowly",
        value=float(np.median(needed)),
        low=float(low),
        high=float(high),
        n=len(rows),
        unit=f"steps until every |s-1| <= {tolerance:g}: median, 95 % of matrices",
        verdict=verdict(low > STEPS, high <= STEPS),
        condition=f"{kind}, {rows.shape[1]} singular values; for the relative Frobenius error the "
        f"median is {np.median(frobenius):g}; confirmed above {STEPS} steps",
        source=NOTES_B,
    )


def slope_of_named_sets() -> Check:
    """Rank correlation of the slope at zero with the number of steps that lifts 1e-3 to 0.5."""
    sets = [per_step(name, 40) for name in NAMES]
    return _correlation(
        "slope_named_sets",
        "a larger slope at zero lifts small singular values faster",
        [recursion.slope_at_zero(triples[:STEPS]) for triples in sets],
        [-steps_to_lift(triples) for triples in sets],
        "named sets; slope over five steps, against steps until 0.001 is first at 0.5 or above",
    )


def slope_of_random_triples(count: int, seed: int) -> Check:
    """Correlation with the input from which all larger inputs end in the band after five steps."""
    triples = random_stable(count, seed)
    served = [recursion.threshold([triple] * STEPS, 0.5, 1.5) for triple in triples]
    return _correlation(
        "slope_random_triples",
        "a larger slope at zero brings smaller singular values into (0.5, 1.5)",
        [triple[0] for triple in triples],
        [-1.0 if low is None else -low for low in served],
        "random stable triples; against the input from which all larger ones end in [0.5, 1.5]",
    )


def slope_and_error(rows: Array, count: int, seed: int) -> Iterator[Check]:
    """Correlation with the mse, for flat and for steep triples, because these may differ."""
    triples = random_stable(count, seed)
    flat, steep = ([t for t in triples if (t[0] > STEEP) is side] for side in (False, True))
    yield _better("slope_and_error_when_flat", flat, rows)
    yield _better("slope_and_error_when_steep", steep, rows)


def _better(name: str, triples: list[Triple], rows: Array) -> Check:
    values = search.nodes(rows)
    errors = [recursion.mse(values, [triple] * STEPS).mean for triple in triples]
    best = triples[int(np.argmin(errors))]
    return _correlation(
        name,
        "a larger slope at zero makes the result better",
        [triple[0] for triple in triples],
        [-error for error in errors],
        f"random stable triples of slope {min(triples)[0]:.2f} to {max(triples)[0]:.2f}; against "
        f"the mse after five steps; the best has slope {best[0]:.2f} (mse {min(errors):.3f}), the "
        f"steepest mse {errors[triples.index(max(triples))]:.3f}",
    )


def steps_to_lift(triples: list[Triple], s: float = 1e-3, to: float = 0.5) -> float:
    """The first number of steps after which s is at least `to`; infinite if it never is."""
    for step, x in enumerate(recursion.steps(s, triples), start=1):
        if x >= to:
            return step
    return math.inf


def random_stable(count: int, seed: int) -> list[Triple]:
    """Uniform on the part of the stability map without escapes and changes of sign."""
    rng = np.random.default_rng(seed)
    a, mu, point = rng.uniform((1.2, -3.2, 0.8), (4.3, 1.0, 1.0), (20 * count, 3)).T
    a, b, c = dynamics.triple_at(a, mu, point)
    stable = np.flatnonzero(dynamics.long_run(a, b, c).kind >= dynamics.ONE)
    triples = [(float(a[i]), float(b[i]), float(c[i])) for i in stable]
    fine = [t for t in triples if recursion.image(0.0, 1.0, [t] * STEPS)[0] >= 0]
    return fine[:count]


def _correlation(name: str, statement: str, x: list[float], y: list[float], how: str) -> Check:
    """Spearman's, with an interval by Fisher's transformation (Bonett and Wright 2000)."""
    value = float(stats.spearmanr(x, y).statistic)
    half = 1.96 * math.sqrt((1 + value**2 / 2) / (len(x) - 3))
    inside = min(max(value, -1 + 1e-9), 1 - 1e-9)  # the transformation of ±1 is infinite
    low, high = (math.tanh(math.atanh(inside) + sign * half) for sign in (-1, 1))
    return Check(
        name=name,
        statement=statement,
        value=value,
        low=low,
        high=high,
        n=len(x),
        unit="Spearman's rank correlation",
        verdict=verdict(low > 0.5, low <= 0),
        condition=f"{how}; confirmed if the interval is above 0.5, refuted if it reaches 0",
        source=NOTES_B,
    )

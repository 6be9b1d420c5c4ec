"""Statements on the official coefficients: how steep, how good, and what could be gained.

They are those in Notes B (docs/claims.md) on errors; shapes enter by their singular values.
"""

from collections.abc import Iterator

import numpy as np
from numpy.polynomial import Polynomial
from scipy.special import binom

from bench.laboratory import dynamics, recursion, search
from bench.laboratory.recursion import Estimate
from bench.laboratory.search import Fit
from bench.laboratory.statements.check import (
    DOCSTRING,
    NAMES,
    NOTES_B,
    STEPS,
    Array,
    Check,
    Spectra,
    over,
    verdict,
)
from optimizers.coefficients import KELLER, TAYLOR, Triple, per_step

STARTS = 12  # starting points of the minimax fit
LONG = 100  # steps after which an iteration has settled
CLOSE = 0.01  # relative to the largest slope: counts as equally good


def checks(rows: Array, unseen: Array, by_shape: Spectra, single: Fit) -> Iterator[Check]:
    """rows: spectra to fit to, as for `single`; unseen: others to measure on."""
    yield taylor_is_second_order()
    yield official_is_steepest()
    yield official_does_not_converge(rows)
    yield official_beats_taylor(by_shape)
    yield fewer_steps(by_shape)
    yield little_to_gain(unseen, single)
    yield little_to_gain_by_steps(rows, unseen)


# where the coefficients come from --------------------------------------------------------------


def taylor_is_second_order() -> Check:
    """s (1 + z)^(-1/2) with z = s^2 - 1, cut after z^2, compared with the triple in use."""
    z = Polynomial([-1, 0, 1])
    series = Polynomial([0, 1]) * sum(binom(-0.5, k) * z**k for k in range(3))
    difference = float(np.abs(series.coef[1::2] - TAYLOR).max())
    return Check(
        name="taylor_is_second_order",
        statement="the theoretical coefficients are the second-order Taylor expansion",
        value=difference,
        low=difference,
        high=difference,
        n=3,
        unit="largest difference of a coefficient",
        verdict=verdict(difference < 1e-12, difference >= 1e-12),
        condition="of 1 / sqrt(s^2) around 1, by the binomial series; confirmed below 1e-12",
        source=NOTES_B,
    )


def official_is_steepest() -> Check:
    """How much steeper another stable triple is, in each reading of stable (dynamics.py).

    The text does not say which reading it means, so only what holds in all of them is decided.
    """
    official = dynamics.long_run(*KELLER)
    epsilon = float(max(official.high - 1, 1 - official.low))
    steeper = {
        "stay": dynamics.steepest_staying(epsilon),
        "limit": dynamics.steepest_ending(epsilon),
        "bounded": dynamics.steepest_bounded(both_signs=False),
    }
    shares = {reading: KELLER[0] / triple[0] for reading, triple in steeper.items()}
    figures = ", ".join(f"{reading} {share:.3f}" for reading, share in shares.items())
    largest = [share > 1 - CLOSE for share in shares.values()]
    return Check(
        name="steepest_in_each_reading",
        statement="the official coefficients have the largest slope at zero of all stable ones",
        **over(list(shares.values())),
        unit="their slope / the largest of stable triples: median and range over readings",
        verdict=verdict(all(largest), not any(largest)),
        condition=f"{figures}; stay, limit: small values stay, or end, within {epsilon:.3f} of 1, "
        f"as theirs, where {_text(steeper['stay'])} stays; bounded: [0, 1] is mapped into itself, "
        f"by {_text(steeper['bounded'])}; confirmed within {CLOSE:.0%} of the largest in every "
        "reading, refuted in none",
        source=DOCSTRING,
    )


def official_does_not_converge(rows: Array) -> Check:
    ends = recursion.iterate(rows, [KELLER] * LONG)
    error = float(np.abs(ends - 1).max())
    return Check(
        name="official_does_not_converge",
        statement="the official coefficients do not converge to the exact factor",
        value=error,
        low=float(ends.min()),
        high=float(ends.max()),
        n=len(rows),
        unit=f"largest |s-1| after {LONG} steps; range: of s",
        verdict=verdict(error > 0.01, error <= 0.01),
        condition=f"Gaussian, {rows.shape[1]} singular values, fp64; the mean of (s-1)^2 is then "
        f"{np.mean((ends - 1) ** 2):.4f}; confirmed above 0.01",
        source=DOCSTRING,
    )


# comparison with the theoretical ones ----------------------------------------------------------


def official_beats_taylor(by_shape: Spectra) -> Check:
    ratios = {
        shape: mean_error(rows, KELLER) / mean_error(rows, TAYLOR)
        for shape, rows in by_shape.items()
    }
    every = list(ratios.values())
    return Check(
        name="official_beats_taylor",
        statement="the official coefficients are clearly better than the theoretical ones",
        **over(every),
        unit="their mean (s-1)^2 / the theoretical ones': median and range over shapes",
        verdict=verdict(max(every) < 0.5, min(every) > 1),
        condition=f"{STEPS} steps of both, Gaussian matrices; worse than the theoretical ones at "
        f"{_shapes(shape for shape, ratio in ratios.items() if ratio > 1)}; confirmed if less than "
        "half the error in every shape, refuted if more in every shape",
        source=NOTES_B,
    )


def fewer_steps(by_shape: Spectra) -> Check:
    needed = {
        shape: taylor_steps(rows, mean_error(rows, KELLER)) for shape, rows in by_shape.items()
    }
    every = list(needed.values())
    return Check(
        name="fewer_steps",
        statement="the official coefficients converge faster than the theoretical ones",
        **over(every),
        unit=f"theoretical steps to the mean (s-1)^2 of {STEPS} official ones: median and range "
        "over shapes",
        verdict=verdict(min(every) > STEPS, max(every) <= STEPS),
        condition="Gaussian matrices; no more than the official ones at "
        f"{_shapes(shape for shape, steps in needed.items() if steps <= STEPS)}; confirmed if more "
        f"than {STEPS} in every shape, refuted if in none",
        source=NOTES_B,
    )


def mean_error(rows: Array, triple: Triple, steps: int = STEPS) -> float:
    return recursion.mse(rows, [triple] * steps).mean


def taylor_steps(rows: Array, error: float) -> int:
    """The first number of theoretical steps whose mean (s-1)^2 is at most `error`."""
    values = rows[rows > 0]
    endless = recursion.steps(values, [TAYLOR] * 1000)
    return next(t for t, x in enumerate(endless, start=1) if np.mean((x - 1) ** 2) <= error)


# the gain of better ones -----------------------------------------------------------------------


def little_to_gain(unseen: Array, single: Fit) -> Check:
    """The gain of another single triple, which the text's two figures are about."""
    return _on_gaussian(
        "gain_by_one_triple",
        "another single triple gains little on the official one: mse 0.04431 to 0.02733",
        {"one fitted triple": single.triples * STEPS},
        unseen,
    )


def little_to_gain_by_steps(rows: Array, unseen: Array) -> Check:
    """The gain of a separate triple for each step, which costs no additional product."""
    sets = {name: per_step(name, STEPS) for name in NAMES if name != "keller"}
    sets["a fitted triple a step"] = search.minimax(rows, STEPS, STARTS).triples
    statement = "a triple for each step gains little on the official one"
    return _on_gaussian("gain_by_a_triple_a_step", statement, sets, unseen)


def _on_gaussian(name: str, statement: str, sets: dict[str, list[Triple]], unseen: Array) -> Check:
    removed = {name: share_removed(unseen, triples) for name, triples in sets.items()}
    figures = ", ".join(
        f"{name} {share.mean:.1%}" for name, share in removed.items() if share.mean > 0
    )
    where = f"{STEPS} quintic steps or less work, Gaussian, {unseen.shape[1]} singular values"
    said = f"{where}, fitted to other spectra: {figures}; what training gains by it is for the "
    return gain(name, statement, removed, len(unseen), f"{said}experiments")


def gain(name: str, statement: str, removed: dict[str, Estimate], n: int, said: str) -> Check:
    """The share of the official set's error that the best of some sets removes, over n spectra.

    said: what the spectra are.
    """
    best = max(removed, key=lambda name: removed[name].mean)
    return Check(
        name=name,
        statement=statement,
        value=removed[best].mean,
        low=removed[best].low,
        high=removed[best].high,
        n=n,
        unit=f"share of their mean (s-1)^2 that {best} removes: mean, 95 % interval",
        verdict=verdict(removed[best].high < 0.5, removed[best].low > 0.5),
        condition=f"{said}; confirmed if the best removes less than half, refuted if more",
        source=NOTES_B,
    )


def share_removed(rows: Array, triples: list[Triple]) -> Estimate:
    """1 - mse / the official mse, with an interval over spectra measured with both sets."""
    official, other = (
        np.mean((recursion.iterate(rows, used) - 1) ** 2, axis=1)
        for used in ([KELLER] * STEPS, triples)
    )
    return recursion.estimate((official - other) / official.mean())


def _text(triple: Triple) -> str:
    return f"({', '.join(f'{k:.4f}' for k in triple)})"


def _shapes(shapes) -> str:
    return ", ".join(f"{n}x{m}" for n, m in shapes) or "none"

"""Statements on coefficients; each check is a pure function of spectra or matrices.

They are in Notes B (docs/claims.md), which explain Keller Jordan's docstring
(github.com/KellerJordan/Muon) with figures of Su Jianlin (https://kexue.fm/archives/10592). Each
check returns its measurement, the verdict, and the rule behind it.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from bench.laboratory import cost, iteration, recursion, search
from bench.laboratory.matrices import Matrices
from bench.laboratory.recursion import Estimate
from bench.laboratory.search import Fit
from bench.laboratory.statements.check import (
    CONFIRMED,
    DOCSTRING,
    NAMES,
    NOTES_A,
    NOTES_B,
    REFUTED,
    STEPS,
    Array,
    Check,
    Spectra,
    over,
    unanswered,
    verdict,
)
from optimizers.coefficients import KELLER, TAYLOR, per_step

SIDE, SAMPLES = 1024, 1000  # of the figures in Notes B
STARTS = 12
STATISTICS: dict[str, Callable[[Array], Array]] = {
    "mean (s-1)^2": np.square,
    "mean |s-1|": np.abs,
    "mean 1-s": np.negative,
}


# the cost of a step ----------------------------------------------------------------------------


def products_a_step() -> Check:
    return _products("products_a_step", "a step takes three matrix products", 1, 3)


def products_in_five_steps() -> Check:
    return _products("products_in_5_steps", "five steps take 15 products of n x n matrices", 5, 15)


def _products(name: str, statement: str, steps: int, claimed: int) -> Check:
    """Counted while the iteration runs, in its plain form and in the others."""

    def count(coefficients: str, form: str, shape: tuple[int, int]) -> int:
        matmuls = cost.count(form, shape, per_step(coefficients, steps), "fp32").matmuls
        assert matmuls is not None  # only the exact form has no count
        return matmuls

    plain = count("keller", "newton_schulz", (SIDE, SIDE))
    cubic = count("cubic5", "newton_schulz", (SIDE, SIDE))
    gram = count("keller", "gram", (SIDE, 4 * SIDE))
    return Check(
        name=name,
        statement=statement,
        value=plain,
        low=plain,
        high=plain,
        n=1,
        unit="matrix products",
        verdict=CONFIRMED if plain == claimed else REFUTED,
        condition=f"quintic triples in the plain form; cubic ones take {cubic}, and the Gram form "
        f"of a 1:4 matrix {gram}, most of them on the smaller side alone",
        source=f"{NOTES_A}; Keller Jordan, muon.py",
    )


# the mean square errors ------------------------------------------------------------------------


def official_mse(rows: Array) -> Check:
    found = recursion.mse(rows, [KELLER] * STEPS)
    statement = "the official coefficients' mse is 0.04431"
    return _figure("official_mse", statement, found, rows, 0.04431)


def fitted_mse(fit: Fit, unseen: Array) -> Check:
    """One triple, measured on other spectra than those it was fitted to."""
    found = recursion.mse(unseen, fit.triples * STEPS)
    triple = ", ".join(f"{k:.4f}" for k in fit.triples[0])
    note = f"by ({triple}), the optimum {'certain' if fit.certain else 'uncertain'}"
    statement = "the best triple's mse is 0.02733"
    return _figure("fitted_mse", statement, found, unseen, 0.02733, note)


def taylor_mse(rows: Array) -> Check:
    """If the figure is not that of the Taylor set, finds the set that it belongs to."""
    figure = 0.18278
    found = recursion.mse(rows, [TAYLOR] * STEPS)
    others = matches(figure, rows)
    searched = f"{len(NAMES)} sets, 1 to 12 steps, {len(STATISTICS)} statistics"
    note = f"of {searched}, the figure is that of {'; '.join(others) or 'none'}"
    statement = "the theoretical coefficients' mse is 0.18278"
    return _figure("taylor_mse", statement, found, rows, figure, note)


def matches(figure: float, rows: Array) -> list[str]:
    """The sets x steps x statistics that agree with a figure within the sampling error."""
    values = search.nodes(rows)
    found = []
    for name in NAMES:
        for steps, ends in enumerate(recursion.steps(values, per_step(name, 12)), start=1):
            for statistic, of in STATISTICS.items():
                if abs(np.mean(of(ends - 1)) - figure) > 0.02 * figure:  # not even near
                    continue
                every = recursion.iterate(rows, per_step(name, steps)) - 1
                estimate = recursion.estimate(of(every).mean(axis=1))
                if _agrees(estimate, figure, len(rows)):
                    found.append(f"{name}, {steps} steps, {statistic}: {estimate.mean:.5f}")
    return found


def _figure(
    name: str, statement: str, found: Estimate, rows: Array, figure: float, note: str = ""
) -> Check:
    rule = "confirmed if the figure, of 1,000 spectra itself, agrees within both sampling errors"
    return Check(
        name=name,
        statement=f"{statement}, n = m = {SIDE}, {STEPS} steps",
        value=found.mean,
        low=found.low,
        high=found.high,
        n=len(rows),
        unit="mean (s-1)^2",
        verdict=CONFIRMED if _agrees(found, figure, len(rows)) else REFUTED,
        condition="; ".join(filter(None, (note, rule))),
        source=f"{NOTES_B}; Su Jianlin, kexue.fm/archives/10592",
    )


def _agrees(found: Estimate, figure: float, samples: int) -> bool:
    """Within the 95 % interval of the difference; the figure is a rounded mean of 1,000 values."""
    half = (found.high - found.mean) * math.sqrt(1 + samples / SAMPLES)
    return abs(found.mean - figure) <= half + 0.5e-5


# results of the official set for singular values -----------------------------------------------


def uniform(by_shape: Spectra) -> Check:
    """Kolmogorov's distance between the outputs and the uniform law on (0.5, 1.5)."""
    law = stats.uniform(0.5, 1.0)
    ends = [recursion.iterate(rows, [KELLER] * STEPS).ravel() for rows in by_shape.values()]
    distances = [float(stats.kstest(end, law.cdf).statistic) for end in ends]
    least, most = min(end.min() for end in ends), max(end.max() for end in ends)
    inside = np.mean([np.mean((end > 0.5) & (end < 1.5)) for end in ends])
    rule = "confirmed if the distance is below 0.1 in all shapes, refuted if in none"
    return Check(
        name="uniform",
        statement="the output's singular values are uniform on (0.5, 1.5)",
        **over(distances),
        unit="Kolmogorov distance: median and range over shapes",
        verdict=verdict(max(distances) < 0.1, min(distances) > 0.1),
        condition=f"Gaussian matrices; the values range from {least:.3f} to {most:.3f}, "
        f"{inside:.1%} are in (0.5, 1.5); {rule}",
        source=DOCSTRING,
    )


def stable_over_shapes(by_shape: Spectra) -> Check:
    """The official set's mse over shapes, with the variation of the other sets' for comparison."""

    def errors(name: str) -> list[float]:
        triples = per_step(name, STEPS)
        return [recursion.mse(rows, triples).mean for rows in by_shape.values()]

    official = errors("keller")
    ratio = max(official) / min(official)
    others = {name: errors(name) for name in NAMES if name != "keller"}
    steadier = [name for name, e in others.items() if max(e) / min(e) < ratio]
    better = [n for n, e in others.items() if all(x < y for x, y in zip(e, official, strict=True))]
    return Check(
        name="stable_over_shapes",
        statement="the official coefficients do equally well on matrices of all shapes",
        value=ratio,
        low=min(official),
        high=max(official),
        n=len(official),
        unit="largest / smallest mean (s-1)^2; range: the two",
        verdict=verdict(ratio <= 2, ratio >= 10),
        condition=f"steadier sets: {', '.join(steadier) or 'none'}; better in every shape: "
        f"{', '.join(better) or 'none'}; confirmed up to a ratio of 2, refuted from 10",
        source=NOTES_B,
    )


def precision(stacks: list[Matrices], kind: str) -> Check:
    """The change of the official set's mse when the iteration runs in lower precision."""
    changes: dict[str, list[float]] = {dtype: [] for dtype in ("fp32", "fp16", "bf16")}
    for stack in stacks:
        exact = _mse_by_matrix(stack, "fp64")
        for dtype, found in changes.items():
            found += list(_mse_by_matrix(stack, dtype) / exact - 1)
    worst = {dtype: max(map(abs, found)) for dtype, found in changes.items()}
    dtype = max(worst, key=worst.__getitem__)
    every = changes[dtype]
    figures = ", ".join(f"{dtype} {change:.1%}" for dtype, change in worst.items())
    return Check(
        name=f"precision_{kind.partition(':')[0]}",
        statement="the official coefficients are insensitive to precision",
        value=worst[dtype],
        low=min(every),
        high=max(every),
        n=len(every),
        unit=f"largest relative change of mean (s-1)^2 ({dtype}), and range over matrices",
        verdict=verdict(worst[dtype] <= 0.05, min(worst.values()) > 0.05),
        condition=f"{kind} matrices, up to {max(s.s_bk.shape[1] for s in stacks)} rows; {figures}; "
        "confirmed up to 5 % in all three, refuted above it in all",
        source=NOTES_B,
    )


def _mse_by_matrix(stack: Matrices, dtype: str) -> Array:
    outcome = iteration.on_matrices(stack, [KELLER] * STEPS, "newton_schulz", dtype)
    assert not isinstance(outcome, int)  # it diverges in no dtype
    return np.mean((outcome.s_bk - 1) ** 2, axis=1, where=stack.s_bk > 0)


def exactness() -> Check:
    statement = "an exact polar factor is unnecessary for training"
    return unanswered(
        "exactness", statement, "only training can decide: see the experiments", DOCSTRING
    )

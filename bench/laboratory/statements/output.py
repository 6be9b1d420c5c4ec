"""Statements on the results of the official steps for singular values, and on the arithmetic."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from bench.laboratory import iteration, matrices, recursion, search
from bench.laboratory.iteration import Outcome
from bench.laboratory.matrices import Matrices, frobenius
from bench.laboratory.settings import Source
from bench.laboratory.statements.check import (
    DOCSTRING,
    NOTES_B,
    STEPS,
    Array,
    Check,
    Spectra,
    over,
    unanswered,
    verdict,
)
from optimizers.coefficients import KELLER, TAYLOR, Triple

STEEP = (Source("condition", 1e6), Source("condition", 1e3), Source("power_law", 1.0))
STEEP_SIDE = 1024
SIDE, SAMPLES = 256, 4  # of matrices
SOURCES = (Source("gaussian"), Source("condition", 1e6), Source("low_rank", 0.1))
LONGEST = 12  # steps
SMALL = 0.01  # of a matrix's norm: smaller singular values are near zero

Cases = dict[str, Array]  # spectra by name


def checks(by_shape: Spectra, seed: int) -> Iterator[Check]:
    cases = {f"{n}x{m}": rows for (n, m), rows in by_shape.items()}
    cases |= {str(source): matrices.prescribed(source, STEEP_SIDE, 1, seed) for source in STEEP}
    yield sprime_range(cases, by_steepness)
    yield nearly_orthogonal(cases, by_steepness)
    stacks = {
        str(source): matrices.formed(source, (SIDE, SIDE), SAMPLES, seed) for source in SOURCES
    }
    yield works_in_bf16(stacks)
    steep = matrices.formed(STEEP[0], (SIDE, SIDE), 2 * SAMPLES, seed)
    yield small_values_near_zero([steep], f"condition 1e6, {SIDE}x{SIDE}")
    yield hardware()


# results for singular values -------------------------------------------------------------------


def sprime_range(cases: Cases, words: Callable[[dict[str, float]], str]) -> Check:
    shares = {}
    for name, rows in cases.items():
        ends = recursion.iterate(rows[rows > 0], [KELLER] * STEPS)
        shares[name] = float(np.mean((ends > 0.5) & (ends < 1.5)))
    least = recursion.threshold([KELLER] * STEPS, 0.5, 1.5)
    return _over_cases(
        "sprime_range",
        "the output's singular values lie in (0.5, 1.5)",
        shares,
        "share of them",
        words,
        confirmed=min(shares.values()) >= 0.99,
        refuted=max(shares.values()) < 0.99,
        rule=f"inputs from {least:.3g} up (1 being the norm of all) end there; confirmed if 99 % "
        "do in every case, refuted if in none",
    )


def nearly_orthogonal(cases: Cases, words: Callable[[dict[str, float]], str]) -> Check:
    """Compared with values uniform on (0.5, 1.5)."""
    errors = {name: float(ended(rows).orthogonality_error_b.mean()) for name, rows in cases.items()}
    uniform = np.sqrt(stats.uniform(0.5, 1).expect(lambda s: (s**2 - 1) ** 2))
    return _over_cases(
        "nearly_orthogonal",
        "the output is nearly orthogonal",
        errors,
        "|X X^T - I| / sqrt(n)",
        words,
        confirmed=max(errors.values()) <= uniform,
        refuted=min(errors.values()) > uniform,
        rule=f"confirmed if nowhere above {uniform:.3f}, that of values uniform on (0.5, 1.5), "
        "refuted if everywhere",
    )


def ended(rows: Array) -> Outcome:
    """The result of the official steps on spectra; they diverge on none."""
    outcome = iteration.on_spectra(rows, [KELLER] * STEPS)
    assert not isinstance(outcome, int)
    return outcome


def _over_cases(
    name: str,
    statement: str,
    found: dict[str, float],
    unit: str,
    words: Callable[[dict[str, float]], str],
    confirmed: bool,
    refuted: bool,
    rule: str,
) -> Check:
    """One number per case."""
    return Check(
        name=name,
        statement=statement,
        **over(list(found.values())),
        unit=f"{unit}: median and range over cases",
        verdict=verdict(confirmed, refuted),
        condition=f"{STEPS} steps; {words(found)}; {rule}",
        source=DOCSTRING,
    )


def by_steepness(found: dict[str, float]) -> str:
    """The range over shapes of Gaussian matrices, and each of the steep spectra."""
    steep = ", ".join(f"{source} {found[str(source)]:.3f}" for source in STEEP)
    gaussian = [value for case, value in found.items() if case not in map(str, STEEP)]
    return (
        f"Gaussian matrices {min(gaussian):.3f} to {max(gaussian):.3f}; "
        f"steep spectra of {STEEP_SIDE} values: {steep}"
    )


# low precision ---------------------------------------------------------------------------------


def works_in_bf16(stacks: dict[str, Matrices]) -> Check:
    """Two conditions: values stay where the iteration is safe, and the result is correct."""
    escape = search.fixed_points(KELLER)[1]
    largest = {name: largest_value(stack) for name, stack in stacks.items()}
    off = {name: bf16_deviation(stack, STEPS) for name, stack in stacks.items()}
    later = {name: bf16_deviation(stack, LONGEST) for name, stack in stacks.items()}
    figures = ", ".join(f"{name} {off[name]:.3f} and {later[name]:.2f}" for name in stacks)
    most = max(largest.values())
    shapes = dict.fromkeys("x".join(map(str, s.X_bnm.shape[1:])) for s in stacks.values())
    return Check(
        name="works_in_bf16",
        statement="the official coefficients work stably in bf16",
        value=most,
        low=min(largest.values()),
        high=most,
        n=sum(len(stack.X_bnm) for stack in stacks.values()),
        unit=f"largest singular value in {LONGEST} steps; range over kinds of matrices",
        verdict=verdict(most < escape and max(off.values()) < 0.05, most >= escape),
        condition=f"{', '.join(shapes)}; values above {escape:.3f} would escape; relative "
        f"deviation from fp64 after {STEPS} and {LONGEST} steps: {figures}; confirmed if none "
        f"comes there and the deviation after {STEPS} steps is below 0.05, refuted if one does",
        source=NOTES_B,
    )


def largest_value(stack: Matrices) -> float:
    """The largest singular value after any number of steps in bf16; infinite if it diverges."""
    found = []
    for steps in range(1, LONGEST + 1):
        s = iteration.spectrum(_iterated(stack.X_bnm, KELLER, steps, "bf16"))
        found.append(np.inf if s is None else s.max())
    return float(max(found))


def bf16_deviation(stack: Matrices, steps: int) -> float:
    """|X in bf16 - X in fp64| / |X in fp64|: the worst of the stack."""
    low, full = (_iterated(stack.X_bnm, KELLER, steps, dtype) for dtype in ("bf16", "fp64"))
    return float((frobenius(low - full) / frobenius(full)).max())


def small_values_near_zero(stacks: Sequence[Matrices], said: str) -> Check:
    """The share of rounding in the results of small singular values, with a smaller slope's too.

    said: what the matrices are.
    """
    noise = {
        (name, dtype): np.concatenate(
            [noise_near_zero(one, _iterated(one.X_bnm, triple, STEPS, dtype)) for one in stacks]
        )
        for name, triple in (("official", KELLER), ("theoretical", TAYLOR))
        for dtype in ("bf16", "fp16", "fp32")
    }
    ratios = recursion.estimate(noise["official", "bf16"] / noise["theoretical", "bf16"])
    figures = ", ".join(
        f"{dtype} {noise['official', dtype].mean():.2g} and "
        f"{noise['theoretical', dtype].mean():.2g}"
        for dtype in ("bf16", "fp16", "fp32")
    )
    return Check(
        name="rounding_near_zero",
        statement="a large slope at zero avoids numerical trouble near zero",
        value=ratios.mean,
        low=ratios.low,
        high=ratios.high,
        n=sum(len(stack.X_bnm) for stack in stacks),
        unit="share of rounding in the directions of small values, official / theoretical "
        "coefficients in bf16: mean, 95 % interval",
        verdict=verdict(ratios.high < 1, ratios.low >= 1),
        condition=f"{said}, {STEPS} steps; directions whose value is below "
        f"{SMALL:g} of the norm: what is off them there / all that is there: {figures}; a step "
        "lifts value and rounding alike, so that either set may be ahead; confirmed if the ratio "
        "is below 1, refuted if not",
        source=NOTES_B,
    )


def small_directions(stack: Matrices) -> int:
    """The number of directions that are small in every matrix of the stack."""
    s_bk = torch.from_numpy(stack.s_bk)
    small_bk = s_bk < SMALL * torch.linalg.vector_norm(s_bk, dim=-1, keepdim=True)
    return int(small_bk.sum(-1).min())


def noise_near_zero(stack: Matrices, result_bnm: Tensor) -> Array:
    """The share of a result's norm between small directions that lies off them, per matrix."""
    U, _, Vh = torch.linalg.svd(stack.X_bnm, full_matrices=False)
    first = U.shape[-1] - small_directions(stack)
    there = U[..., first:].mT @ result_bnm @ Vh[..., first:, :].mT
    along = torch.diag_embed(torch.diagonal(there, dim1=-2, dim2=-1))
    return (frobenius(there - along) / frobenius(there)).numpy()


def _iterated(X_bnm: Tensor, triple: Triple, steps: int, dtype: str) -> Tensor:
    return iteration.iterated(X_bnm, [triple] * steps, "newton_schulz", dtype)


def hardware() -> Check:
    return unanswered(
        "hardware",
        "the official coefficients are insensitive to the hardware",
        "only this machine was at hand, where the checks of precision ran in fp64, fp32, fp16 and "
        "bf16; missing: the same on an accelerator and on another processor",
        NOTES_B,
    )

"""Statements on directions and scale: what msign keeps, and what its approximation keeps.

The directions of X = U S V^T are its singular vectors. A result O has the same directions if and
only if U^T O V is diagonal: the off-diagonal part measures the deviation. msign itself is U V^T, so
statements on it are theorems; those on five steps in low precision are not.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.laboratory import iteration, matrices
from bench.laboratory.matrices import Matrices, frobenius
from bench.laboratory.settings import Source
from bench.laboratory.statements.check import (
    DOCSTRING,
    NOTES_A,
    STEPS,
    Array,
    Check,
    over,
    verdict,
)
from optimizers.coefficients import KELLER

SIDE, SAMPLES = 256, 2
ROUNDING = 1e-6  # smaller values are rounding
OFF = 0.05  # of a norm: kept directions have at most this share off them
MAIN = 0.99  # of a matrix's squared norm: the share of its main directions together
ANGLE = 10.0  # degrees: a main direction counts as kept up to this angle


class Case(NamedTuple):
    """A stack of matrices with their singular vectors: X = U S V^T."""

    name: str
    stack: Matrices
    U_bnk: Tensor
    V_bmk: Tensor


def cases(seed: int) -> list[Case]:
    """Momenta without structure, steep ones, and ones with few directions."""
    n = SIDE
    gaussian = Source("gaussian")
    found = [(gaussian, (n, n)), (gaussian, (n, 4 * n))]
    steep = (Source("condition", 1e6), Source("power_law", 1.0), Source("low_rank", 0.1))
    found += [(source, (n, n)) for source in steep]
    return [
        case(f"{source} {shape[0]}x{shape[1]}", matrices.formed(source, shape, SAMPLES, seed))
        for source, shape in found
    ]


def case(name: str, stack: Matrices) -> Case:
    U, _, Vh = torch.linalg.svd(stack.X_bnm, full_matrices=False)
    return Case(name, stack, U, Vh.mT)


def official(case: Case, dtype: str) -> Tensor:
    """Five steps of the official coefficients, iterated in `dtype`."""
    return iteration.iterated(case.stack.X_bnm, [KELLER] * STEPS, "newton_schulz", dtype)


def checks(found: list[Case]) -> Iterator[Check]:
    yield exact_keeps_directions(found)
    yield steps_keep_directions(found)
    yield exact_normalizes_scale(found)
    yield steps_normalize_scale(found)
    yield main_directions(found)


# directions ------------------------------------------------------------------------------------


def off_directions(case: Case, result_bnm: Tensor) -> float:
    """The share of a result's Frobenius norm off X's directions: the worst of the stack."""
    U, V = case.U_bnk, case.V_bmk
    along = torch.diagonal(U.mT @ result_bnm @ V, dim1=-2, dim2=-1)
    off = result_bnm - (U * along.unsqueeze(-2)) @ V.mT
    return float((frobenius(off) / frobenius(result_bnm)).max())


def exact_keeps_directions(found: list[Case]) -> Check:
    off = [off_directions(case, case.stack.msign_bnm) for case in found]
    return Check(
        name="exact_keeps_directions",
        statement="msign keeps a matrix's directions, its singular vectors",
        **over(off),
        unit="share of the norm off the directions, exact msign in fp64: median and range over "
        "kinds of matrices",
        verdict=verdict(max(off) < ROUNDING, max(off) >= ROUNDING),
        condition=f"confirmed if nothing but rounding is off them, below {ROUNDING:g}",
        source=NOTES_A,
    )


def steps_keep_directions(found: list[Case]) -> Check:
    off = [off_directions(case, official(case, "bf16")) for case in found]
    finer = max(off_directions(case, official(case, "fp32")) for case in found)
    return Check(
        name="steps_keep_directions",
        statement="five Newton-Schulz steps in bf16 keep a matrix's directions",
        **over(off),
        unit="share of the norm off the directions, official coefficients in bf16: median and "
        "range over kinds of matrices",
        verdict=verdict(max(off) < OFF, min(off) >= OFF),
        condition=f"{_figures(found, off)}; in fp32 {finer:.0e} at most; confirmed below {OFF:g} "
        "for all kinds, refuted for none",
        source=NOTES_A,
    )


def main_directions(found: list[Case]) -> Check:
    """The main directions are the largest ones that together have MAIN of the squared norm."""
    angles = [main_angle(case, official(case, "bf16")) for case in found]
    agreement = [cosine(official(case, "bf16"), case.stack.msign_bnm) for case in found]
    return Check(
        name="angles_of_main_directions",
        statement="the official coefficients keep the main directions",
        **over(angles),
        unit="largest angle in degrees between a main direction and what becomes of it, in bf16: "
        "median and range over kinds of matrices",
        verdict=verdict(max(angles) <= ANGLE, min(angles) > ANGLE),
        condition=f"directions with {MAIN:.0%} of the squared norm, u as v's image and v as u's: "
        f"{_figures(found, angles)}; all directions count in the cosine with U V^T: "
        f"{_figures(found, agreement)}; confirmed up to {ANGLE:g} degrees for all kinds, refuted "
        "for none",
        source=DOCSTRING,
    )


def main_angle(case: Case, result_bnm: Tensor) -> float:
    """The largest angle, in degrees, between u and O v or between v and O^T u, over main pairs."""
    s = torch.from_numpy(case.stack.s_bk)
    squares = s.square() / s.square().sum(-1, keepdim=True)
    main = squares.cumsum(-1) - squares < MAIN
    U, V = case.U_bnk, case.V_bmk
    cosines = [
        (image * wanted).sum(-2) / torch.linalg.vector_norm(image, dim=-2)
        for image, wanted in ((result_bnm @ V, U), (result_bnm.mT @ U, V))
    ]
    least = min(float(along[main].min()) for along in cosines)
    return float(np.degrees(np.arccos(np.clip(least, -1, 1))))


def cosine(X_bnm: Tensor, Q_bnm: Tensor) -> float:
    """The cosine of the angle between two matrices: the least of the stack."""
    inner = (X_bnm * Q_bnm).sum((-2, -1))
    return float((inner / (frobenius(X_bnm) * frobenius(Q_bnm))).min())


# scale -----------------------------------------------------------------------------------------


def exact_normalizes_scale(found: list[Case]) -> Check:
    """For the directions that a matrix has: those with zero singular value stay zero."""
    errors = [_largest(singular_values(case, case.stack.msign_bnm)) for case in found]
    return Check(
        name="exact_normalizes_scale",
        statement="msign normalizes a matrix's scale: all singular values become 1",
        **over(errors),
        unit="largest |s-1|, exact msign in fp64: median and range over kinds of matrices",
        verdict=verdict(max(errors) < ROUNDING, max(errors) >= ROUNDING),
        condition=f"confirmed if all are 1 but for rounding, below {ROUNDING:g}",
        source=NOTES_A,
    )


def steps_normalize_scale(found: list[Case]) -> Check:
    five = [singular_values(case, official(case, "fp32")) for case in found]
    inside = [bool(s.min() > 0.5 and s.max() < 1.5) for s in five]
    figures = ", ".join(
        f"{case.name} {_span(s)} (of {_span(singular_values(case, case.stack.X_bnm))})"
        for case, s in zip(found, five, strict=True)
    )
    return Check(
        name="steps_normalize_scale",
        statement="five Newton-Schulz steps normalize a matrix's scale",
        **over([float(np.abs(s - 1).mean()) for s in five]),
        unit="mean |s-1|, official coefficients in fp32: median and range over kinds of matrices",
        verdict=verdict(all(inside), not any(inside)),
        condition=f"{figures}; confirmed if all values of all kinds are within (0.5, 1.5), refuted "
        "if those of none are",
        source=NOTES_A,
    )


def singular_values(case: Case, result_bnm: Tensor) -> Array:
    """A result's singular values, for each matrix as many as X has nonzero ones."""
    return torch.linalg.svdvals(result_bnm).numpy()[case.stack.s_bk > 0]


def _largest(s: Array) -> float:
    return float(np.abs(s - 1).max())


def _figures(found: list[Case], values: list[float]) -> str:
    pairs = zip(found, values, strict=True)
    return ", ".join(f"{case.name} {value:.2g}" for case, value in pairs)


def _span(s: Array) -> str:
    return f"{s.min():.2g} to {s.max():.3g}"

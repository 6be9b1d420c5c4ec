"""The statements about msign: it keeps a matrix's directions and normalizes its scale.

The directions of X = U S V^T are its singular vectors. Of a result O, U^T O V is diagonal if and
only if it has them too: the part off the diagonal says how far it has not.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binned_statistic
from torch import Tensor

from bench.laboratory import iteration, matrices
from bench.laboratory.matrices import Matrices, frobenius
from bench.laboratory.settings import Source
from bench.laboratory.statements.check import SEED_1, STEPS, Array, Check, over, verdict
from optimizers.coefficients import KELLER

SIDE, SAMPLES = 256, 2
DTYPES = ("fp32", "bf16")  # of the iteration
BINS = 200  # of an element-wise map's input
ROUNDING = 1e-6  # what is below it is rounding


def checks(seed: int) -> Iterator[Check]:
    found = cases(seed)
    yield keeps_directions(found)
    yield normalizes_scale(found)
    yield elementwise_reaches(found)
    yield steepest_in_spectral_norm(found)
    yield norms(found, seed)


class Case(NamedTuple):
    """A stack of matrices with their singular vectors: X = U S V^T."""

    name: str
    stack: Matrices
    U_bnk: Tensor
    V_bmk: Tensor


def cases(seed: int) -> list[Case]:
    """Momenta without structure, steep ones, and ones of few directions."""
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
    """Five steps of the official coefficients, the iteration in `dtype`."""
    return iteration.iterated(case.stack.X_bnm, [KELLER] * STEPS, "newton_schulz", dtype)


def off_directions(case: Case, result_bnm: Tensor) -> float:
    """The share of a result's Frobenius norm that is off X's directions: the worst of the stack."""
    U, V = case.U_bnk, case.V_bmk
    along = torch.diagonal(U.mT @ result_bnm @ V, dim1=-2, dim2=-1)
    off = result_bnm - (U * along.unsqueeze(-2)) @ V.mT
    return float((frobenius(off) / frobenius(result_bnm)).max())


def keeps_directions(found: list[Case]) -> Check:
    exact = max(off_directions(case, case.stack.msign_bnm) for case in found)
    off = {dtype: [off_directions(c, official(c, dtype)) for c in found] for dtype in DTYPES}
    worst = {dtype: max(values) for dtype, values in off.items()}
    figures = ", ".join(
        f"{case.name} {value:.2g}" for case, value in zip(found, off["bf16"], strict=True)
    )
    return Check(
        name="msign_keeps_directions",
        statement="msign keeps a matrix's directions, its singular vectors",
        value=float(np.median(off["bf16"])),
        low=min(off["bf16"]),
        high=worst["bf16"],
        n=len(found),
        unit="share of the norm off the directions, official coefficients in bf16: median and "
        "range over kinds of matrices",
        verdict=verdict(max(exact, *worst.values()) < 0.05, exact >= 0.05),
        condition=f"largest: exact {exact:.0e}, official coefficients in fp32 {worst['fp32']:.0e}; "
        f"in bf16 {figures}; confirmed below 0.05 in all of them, refuted if not even by the exact "
        "factor",
        source=SEED_1,
    )


def normalizes_scale(found: list[Case]) -> Check:
    """Over the directions that a matrix has: those of zero singular value stay zero."""
    exact = max(np.abs(singular_values(case, case.stack.msign_bnm) - 1).max() for case in found)
    five = [singular_values(case, official(case, "fp32")) for case in found]
    errors = [float(np.abs(s - 1).mean()) for s in five]
    figures = ", ".join(
        f"{case.name} {_span(s)} (of {_span(singular_values(case, case.stack.X_bnm))})"
        for case, s in zip(found, five, strict=True)
    )
    inside = all(s.min() > 0.5 and s.max() < 1.5 for s in five)
    return Check(
        name="msign_normalizes_scale",
        statement="msign normalizes a matrix's scale: all singular values become 1",
        **over(errors),
        unit="mean |s-1|, official coefficients: median and range over kinds of matrices",
        verdict=verdict(exact < ROUNDING and inside, exact >= ROUNDING),
        condition=f"exact: largest |s-1| {exact:.0e}; official coefficients in fp32: {figures}; "
        "confirmed if exact ones are 1 and the others all within (0.5, 1.5), refuted if exact ones "
        "are not",
        source=SEED_1,
    )


def singular_values(case: Case, result_bnm: Tensor) -> Array:
    """The singular values of a result, as many of each matrix as X has nonzero ones."""
    return torch.linalg.svdvals(result_bnm).numpy()[case.stack.s_bk > 0]


# what else comes near --------------------------------------------------------------------------


def elementwise_reaches(found: list[Case]) -> Check:
    """The best of all maps that are the same for every entry, and the signs, Adam's limit."""
    best = [max(map(best_elementwise, c.stack.X_bnm, c.stack.msign_bnm)) for c in found]
    five = [max(map(sine, official(case, "fp32"), case.stack.msign_bnm)) for case in found]
    signs = [off_directions(case, case.stack.X_bnm.sign()) for case in found]
    figures = ", ".join(
        f"{case.name} {b:.2f} (five steps {s:.2f})"
        for case, b, s in zip(found, best, five, strict=True)
    )
    return Check(
        name="elementwise_reaches_msign",
        statement="no element-wise method keeps directions and normalizes scale as msign does",
        **over(best),
        unit="sine of the angle between msign and the nearest element-wise map: median and range "
        "over kinds of matrices",
        verdict=verdict(min(best) > 0.1, max(best) < 0.1),
        condition=f"the nearest by conditional means, {BINS} bins; {figures}; the signs of the "
        f"entries have {min(signs):.0%} to {max(signs):.0%} of their norm off the directions; "
        "confirmed if the nearest is above 0.1 everywhere, refuted if nowhere",
        source=SEED_1,
    )


def best_elementwise(X_nm: Tensor, Q_nm: Tensor) -> float:
    """|Q - f(X)| / |Q| for the f, applied to every entry alike, with which it is least.

    f(x) is the mean of Q's entries where X's are about x: in bins of equally many entries.
    """
    x, q = X_nm.flatten().numpy(), Q_nm.flatten().numpy()
    edges = np.quantile(x, np.linspace(0, 1, BINS + 1))
    means, _, bins = binned_statistic(x, q, "mean", edges)
    return float(np.linalg.norm(q - means[bins - 1]) / np.linalg.norm(q))


def sine(X_nm: Tensor, Q_nm: Tensor) -> float:
    """Of the angle between two matrices: |Q - k X| / |Q| with the best k."""
    along = (X_nm * Q_nm).sum() / X_nm.square().sum()
    return float((Q_nm - along * X_nm).norm() / Q_nm.norm())


# norms -----------------------------------------------------------------------------------------


def steepest_in_spectral_norm(found: list[Case]) -> Check:
    """<G, U> / |U|_2 is at most G's nuclear norm: the steepest step of a given spectral norm."""

    def share(case: Case, step_bnm: Tensor) -> Array:
        inner = (case.stack.X_bnm * step_bnm).sum((-2, -1))
        return (inner / torch.linalg.matrix_norm(step_bnm, 2)).numpy() / case.stack.s_bk.sum(1)

    exact = min(share(case, case.stack.msign_bnm).min() for case in found)
    five = [float(share(case, official(case, "fp32")).mean()) for case in found]
    signs = [float(share(case, case.stack.X_bnm.sign()).mean()) for case in found]
    figures = ", ".join(f"{case.name} {value:.2f}" for case, value in zip(found, five, strict=True))
    return Check(
        name="steepest_in_spectral_norm",
        statement="Muon takes the steepest step of a given spectral norm",
        **over(five),
        unit="decrease per spectral norm / the largest possible, official coefficients: median "
        "and range over kinds of matrices",
        verdict=verdict(exact > 1 - ROUNDING and min(five) > 0.95, exact <= 1 - ROUNDING),
        condition=f"exact msign {exact:.6f}; official coefficients: {figures}, their largest "
        f"singular value being above 1; the signs {min(signs):.2f} to {max(signs):.2f}; confirmed "
        "if exact msign reaches 1 and the official coefficients 0.95, refuted if msign does not",
        source=SEED_1,
    )


def norms(found: list[Case], seed: int) -> Check:
    """What becomes of both norms when the entries are shuffled, which destroys all structure."""
    generator = torch.Generator().manual_seed(seed)
    of_frobenius, of_spectral = [], []
    for case in found:
        X = case.stack.X_bnm[0]
        order = torch.randperm(X.numel(), generator=generator)
        shuffled = X.flatten()[order].view_as(X)
        of_frobenius.append(abs(float(shuffled.norm() / X.norm() - 1)))
        spectral = torch.linalg.matrix_norm(torch.stack([X, shuffled]), 2)
        of_spectral.append(float(spectral[1] / spectral[0] - 1))
    changes = [abs(change) for change in of_spectral]
    figures = ", ".join(f"{c.name} {x:+.0%}" for c, x in zip(found, of_spectral, strict=True))
    return Check(
        name="norms_and_structure",
        statement="the Frobenius norm sees entries only, the spectral norm sees structure",
        **over(changes),
        unit="relative change of the spectral norm when entries are shuffled: median and range "
        "over kinds of matrices",
        verdict=verdict(
            max(of_frobenius) < ROUNDING and max(changes) > 0.1,
            max(of_frobenius) >= ROUNDING or max(changes) < ROUNDING,
        ),
        condition=f"{figures}; the Frobenius norm changes by {max(of_frobenius):.0e} at most; "
        "Gaussian matrices have no structure to lose; confirmed if the Frobenius norm stays and "
        "the spectral norm of some matrices changes by a tenth",
        source=SEED_1,
    )


def _span(s: Array) -> str:
    return f"{s.min():.2g} to {s.max():.3g}"

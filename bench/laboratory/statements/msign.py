"""Statements comparing msign with other maps, and on norms and traces of matrices."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import binned_statistic
from torch import Tensor

from bench.laboratory.statements import directions
from bench.laboratory.statements.check import NOTES_A, Array, Check, over, verdict
from bench.laboratory.statements.directions import ROUNDING, Case, off_directions, official

BINS = 200  # for an element-wise map's input
SIDE = 48  # of a matrix with eigenvalues


def checks(seed: int) -> Iterator[Check]:
    found = directions.cases(seed)
    yield from directions.checks(found)
    yield elementwise_reaches(found)
    yield steepest_in_spectral_norm(found)
    yield norms(found, seed)
    yield trace_is_sum_of_eigenvalues(seed)


# element-wise maps -----------------------------------------------------------------------------


def elementwise_reaches(found: list[Case]) -> Check:
    """The best of all maps that treat every entry alike, and the signs, which are Adam's limit."""
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
        source=NOTES_A,
    )


def best_elementwise(X_nm: Tensor, Q_nm: Tensor) -> float:
    """The least |Q - f(X)| / |Q| over all f that are applied to every entry alike.

    f(x) is the mean of Q's entries where X's are near x, in bins with equally many entries.
    """
    x, q = X_nm.flatten().numpy(), Q_nm.flatten().numpy()
    edges = np.quantile(x, np.linspace(0, 1, BINS + 1))
    means, _, bins = binned_statistic(x, q, "mean", edges)
    return float(np.linalg.norm(q - means[bins - 1]) / np.linalg.norm(q))


def sine(X_nm: Tensor, Q_nm: Tensor) -> float:
    """The sine of the angle between two matrices: |Q - k X| / |Q| with the best k."""
    along = (X_nm * Q_nm).sum() / X_nm.square().sum()
    return float((Q_nm - along * X_nm).norm() / Q_nm.norm())


# norms and traces -------------------------------------------------------------------------------


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
        source=NOTES_A,
    )


def norms(found: list[Case], seed: int) -> Check:
    """The change of both norms when the entries are shuffled, which destroys all structure."""
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
        source=NOTES_A,
    )


def trace_is_sum_of_eigenvalues(seed: int) -> Check:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(SIDE, SIDE, dtype=torch.float64, generator=generator)
    off = float(abs(torch.linalg.eigvals(A).sum() - torch.trace(A)) / A.norm())
    return Check(
        name="trace_is_sum_of_eigenvalues",
        statement="the trace is the sum of the eigenvalues",
        value=off,
        low=None,
        high=None,
        n=1,
        unit="difference / Frobenius norm",
        verdict=verdict(off < ROUNDING, off >= ROUNDING),
        condition=f"a Gaussian {SIDE}x{SIDE} matrix in fp64; confirmed but for rounding, below "
        f"{ROUNDING:g}",
        source=NOTES_A,
    )

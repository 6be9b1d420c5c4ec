"""The iteration on real matrices in a dtype: how far from msign it ends."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.laboratory import recursion
from bench.laboratory.matrices import Matrices
from optimizers.coefficients import Triple
from optimizers.orthogonalize.iteration import DTYPES, msign, orthogonalize


class Outcome(NamedTuple):
    """The result for a stack: singular values (descending) and distances to msign, one row each.

    relative_error: |X - Q| / |Q| with Q the exact msign; cosine: <X, Q> / (|X| |Q|);
    orthogonality_error: |X X^T - Q Q^T| / sqrt(rank), where Q Q^T is the identity if the rank
    is full and X is wide. All norms are Frobenius norms.
    """

    s_bk: NDArray[np.float64]
    relative_error_b: NDArray[np.float64]
    cosine_b: NDArray[np.float64]
    orthogonality_error_b: NDArray[np.float64]


def on_matrices(
    matrices: Matrices, triples: list[Triple], form: str, dtype: str, device: str = "cpu"
) -> Outcome | int:
    """Run it on the device; if it diverges, returns the step (from 1) at which it did."""
    X = iterated(matrices.X_bnm, triples, form, dtype, device)
    s = spectrum(X)
    if s is None:
        return diverged_at(matrices.X_bnm, triples, form, dtype, device)
    Q = matrices.msign_bnm
    if X.shape[-2] > X.shape[-1]:
        X, Q = X.mT, Q.mT
    norm = torch.linalg.vector_norm
    of_Q = norm(Q, dim=(1, 2))
    inner = (X * Q).sum((1, 2))
    return Outcome(
        s,
        (norm(X - Q, dim=(1, 2)) / of_Q).numpy(),
        (inner / (norm(X, dim=(1, 2)) * of_Q)).numpy(),
        (norm(X @ X.mT - Q @ Q.mT, dim=(1, 2)) / of_Q).numpy(),
    )


def on_spectra(s_bk: NDArray[np.float64], triples: list[Triple]) -> Outcome | int:
    """The same by the scalar recursion: without rounding, singular vectors do not change."""
    step = recursion.diverged_at(s_bk, triples)
    if step is not None:
        return step
    ends = recursion.iterate(s_bk, triples)
    present = s_bk > 0
    rank = present.sum(axis=1)
    x = np.where(present, ends, 0.0)
    size = np.sqrt((x**2).sum(axis=1) * rank)
    return Outcome(
        -np.sort(-np.abs(ends), axis=1),
        np.sqrt(((x - present) ** 2).sum(axis=1) / rank),
        x.sum(axis=1) / np.where(size > 0, size, np.nan),
        np.sqrt(((x**2 - present) ** 2).sum(axis=1) / rank),
    )


def iterated(
    X_bnm: Tensor, triples: list[Triple], form: str, dtype: str, device: str = "cpu"
) -> Tensor:
    """Iterates in `dtype` on the device, and returns fp64 on the input's device. As in training,
    norms are computed before the cast."""
    X, home = X_bnm.to(device), X_bnm.device
    if form == "exact":
        return msign(X.to(DTYPES[dtype])).to(home, torch.float64)
    return orthogonalize(X, triples, form, DTYPES[dtype]).to(home, torch.float64)


def spectrum(X_bnm: Tensor) -> NDArray[np.float64] | None:
    """Singular values, descending; None if one is not finite or is above 100.

    Computed from the smaller Gram matrix in fp64: values near 1 keep all digits, those below 1e-8
    are noise.
    """
    if not bool((X_bnm.abs() <= recursion.ESCAPED).all()):
        return None
    wide = X_bnm if X_bnm.shape[-2] <= X_bnm.shape[-1] else X_bnm.mT
    s = torch.linalg.eigvalsh(wide @ wide.mT).clamp_min_(0).sqrt_().flip(-1)
    return s.numpy() if bool((s <= recursion.ESCAPED).all()) else None


def diverged_at(X_bnm: Tensor, triples: list[Triple], form: str, dtype: str, device: str) -> int:
    """The first number of steps after which a singular value is not finite or is above 100."""
    for steps in range(1, len(triples)):
        if spectrum(iterated(X_bnm, triples[:steps], form, dtype, device)) is None:
            return steps
    return len(triples)

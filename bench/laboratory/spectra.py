"""Singular values of random matrices without forming the matrices (numpy, fp64).

Every function returns rows of min(n, m) singular values, descending, one row per matrix, each row
divided by its 2-norm: the spectra that Newton-Schulz gets after its normalisation.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal

PRESCRIBED = ("log_uniform", "power_law", "condition", "low_rank")

# Below this share of the largest singular value, squaring (B^T B) costs more than six of the
# sixteen digits, and the spectrum is recomputed without squaring.
SQUARING_LIMIT = 3e-5


def gaussian(n: int, m: int, samples: int, seed: int) -> NDArray[np.float64]:
    """Spectra of Gaussian n x m matrices from the chi-bidiagonal model: (samples, min(n, m)).

    Golub-Kahan reduction turns a Gaussian matrix into a bidiagonal one with independent entries:
    chi with max(n, m), max(n, m) - 1, ... degrees of freedom on the diagonal, and with min(n, m) -
    1, ..., 1 beside it.
    Source: Silverstein, Ann. Probab. 13 (1985); Dumitriu and Edelman, arXiv math-ph/0206043.
    """
    few, many = sorted((n, m))
    rng = np.random.default_rng(seed)
    spectra = np.empty((samples, few))
    for row in spectra:
        diagonal = np.sqrt(rng.chisquare(np.arange(many, many - few, -1)))
        beside = np.sqrt(rng.chisquare(np.arange(few - 1, 0, -1)))
        row[:] = bidiagonal(diagonal, beside)
    return _normed(spectra)


def limit(n: int, m: int, count: int) -> NDArray[np.float64]:
    """Quantiles of a large Gaussian n x m matrix's singular values, without sampling, ascending.

    Marchenko and Pastur's law of l = s^2 / m with y = n / m <= 1, in the angle that makes the
    density smooth at both edges: l = 1 + y - 2 sqrt(y) cos(t) has weight 2 sin(t)^2 / (pi l). For y
    = 1 it is the quarter circle. Source: Math. USSR Sbornik 1 (1967), 457.
    """
    few, many = sorted((n, m))
    y = few / many
    t = (np.arange(2**18) + 0.5) * (np.pi / 2**18)
    s2 = (1 - np.sqrt(y)) ** 2 + 4 * np.sqrt(y) * np.sin(t / 2) ** 2  # no cancellation near 0
    share = np.cumsum(np.sin(t) ** 2 / s2)
    wanted = (np.arange(count) + 0.5) / count
    return np.sqrt(np.interp(wanted, share / share[-1], s2) / few)


def bidiagonal(diagonal: NDArray[np.float64], beside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Singular values, descending, of the bidiagonal matrix B with these two diagonals.

    They are the roots of the eigenvalues of B^T B, five times faster than the Golub-Kahan form. If
    squaring would cost the smallest ones digits, the Golub-Kahan form is used: a tridiagonal matrix
    of twice the size with zero diagonal, whose eigenvalues are plus and minus the singular values.
    """
    squares = diagonal**2
    squares[1:] += beside**2
    eigenvalues = eigvalsh_tridiagonal(squares, diagonal[:-1] * beside, lapack_driver="sterf")
    if eigenvalues[0] > SQUARING_LIMIT**2 * eigenvalues[-1]:
        return np.sqrt(eigenvalues[::-1])
    k = len(diagonal)
    interleaved = np.empty(2 * k - 1)
    interleaved[::2], interleaved[1::2] = diagonal, beside
    both_signs = eigvalsh_tridiagonal(np.zeros(2 * k), interleaved, lapack_driver="sterf")
    return np.abs(both_signs[: k - 1 : -1])


def prescribed(kind: str, n: int, value: float, samples: int, seed: int) -> NDArray[np.float64]:
    """Spectra of n singular values with a given law: (samples, n).

    log_uniform: independent, log-uniform on [1 / value, 1]; power_law: the i-th is i^-value;
    condition: evenly spaced in the logarithm from 1 to 1 / value, the condition number;
    low_rank: Gaussian of rank value * n (at least 1), the rest zero. The first and the third are
    modes 5 and 3 of randsvd, Higham, Accuracy and Stability (2002), section 28.3.
    Raises ValueError for another kind.
    """
    rng = np.random.default_rng(seed)
    if kind == "log_uniform":
        spectra = -np.sort(-(value ** -rng.random((samples, n))), axis=1)
    elif kind == "power_law":
        spectra = np.tile(np.arange(1.0, n + 1) ** -value, (samples, 1))
    elif kind == "condition":
        spectra = np.tile(np.geomspace(1, 1 / value, n), (samples, 1))
    elif kind == "low_rank":
        rank = max(1, round(value * n))
        spectra = np.zeros((samples, n))
        spectra[:, :rank] = gaussian(rank, n, samples, seed)
    else:
        raise ValueError(f"{kind}: no such spectrum; accepted: gaussian, {', '.join(PRESCRIBED)}")
    return _normed(spectra)


def padded(rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Spectra of different lengths as rows of one array, padded with zeros."""
    whole = np.zeros((len(rows), max(map(len, rows))))
    for filled, row in zip(whole, rows, strict=True):
        filled[: len(row)] = row
    return whole


def _normed(spectra: NDArray[np.float64]) -> NDArray[np.float64]:
    return spectra / np.linalg.norm(spectra, axis=1, keepdims=True)

"""Spectra without matrices against the singular values of real matrices."""

import numpy as np
import pytest
from scipy import stats

from bench.laboratory import spectra

SAMPLES = 400


@pytest.mark.parametrize(("n", "m"), [(32, 32), (24, 96), (96, 24), (1, 5), (2, 2)])
def test_gaussian_spectra_are_those_of_gaussian_matrices(n: int, m: int) -> None:
    model = spectra.gaussian(n, m, SAMPLES, seed=1)
    matrices = np.random.default_rng(2).standard_normal((SAMPLES, n, m))
    matrices /= np.linalg.norm(matrices, axis=(1, 2), keepdims=True)
    dense = np.linalg.svd(matrices, compute_uv=False)

    assert model.shape == dense.shape == (SAMPLES, min(n, m))
    if min(n, m) == 1:
        assert np.allclose(model, 1, rtol=1e-15)
        return
    error = np.sqrt((model.var(0, ddof=1) + dense.var(0, ddof=1)) / SAMPLES)
    assert (np.abs(model.mean(0) - dense.mean(0)) < 4.5 * error).all()
    for column in (0, -1):  # the largest and the smallest: their whole distribution
        assert stats.ks_2samp(model[:, column], dense[:, column]).pvalue > 1e-3


def test_the_smallest_singular_value_of_a_square_gaussian_follows_edelmans_law() -> None:
    n = 128
    smallest = spectra.gaussian(n, n, SAMPLES, seed=0)[:, -1]
    # Of a standard Gaussian, P(sqrt(n) sigma <= t) -> 1 - exp(-t^2 / 2 - t); its Frobenius norm
    # is close to n (Edelman, SIAM J. Matrix Anal. Appl. 9, 1988).
    law = stats.kstest(smallest * n**1.5, lambda t: 1 - np.exp(-(t**2) / 2 - t))
    assert law.pvalue > 1e-3


def test_spectra_are_normed_descending_and_set_by_their_seed() -> None:
    for s in (
        spectra.gaussian(40, 20, 5, seed=3),
        *(spectra.prescribed(kind, 20, 0.5, 5, seed=3) for kind in ("power_law", "low_rank")),
        *(spectra.prescribed(kind, 20, 1e6, 5, seed=3) for kind in ("log_uniform", "condition")),
    ):
        assert s.shape == (5, 20)
        assert np.allclose(np.linalg.norm(s, axis=1), 1)
        assert (np.diff(s, axis=1) <= 0).all() and (s >= 0).all()
    one, same, other = (spectra.gaussian(9, 9, 2, seed) for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).all()


@pytest.mark.parametrize("smallest", [1e-3, 1e-6, 1e-9, 1e-12])
def test_small_singular_values_are_accurate(smallest: float) -> None:
    """Of a 2 x 2 bidiagonal the product of both is the determinant, exactly."""
    diagonal, beside = np.array([1.0, smallest]), np.array([0.5])
    large, small = spectra.bidiagonal(diagonal, beside)
    assert small * large == pytest.approx(smallest, rel=max(1e-6, 4e-16 / smallest))


def test_squaring_costs_no_more_than_a_millionth() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        diagonal = np.sqrt(rng.chisquare(np.arange(100, 0, -1)))
        diagonal[50] *= 10.0 ** -rng.uniform(0, 6)
        beside = np.sqrt(rng.chisquare(np.arange(99, 0, -1)))
        dense = np.linalg.svd(np.diag(diagonal) + np.diag(beside, 1), compute_uv=False)
        assert np.allclose(spectra.bidiagonal(diagonal, beside), dense, rtol=1e-6, atol=1e-14)


def test_prescribed_spectra_follow_their_law() -> None:
    s = spectra.prescribed("condition", 50, 1e6, 1, seed=0)[0]
    assert s[0] / s[-1] == pytest.approx(1e6)
    assert np.allclose(np.diff(np.log(s)), np.log(s[1] / s[0]))
    s = spectra.prescribed("power_law", 50, 1.5, 1, seed=0)[0]
    assert s[7] / s[0] == pytest.approx(8**-1.5)
    s = spectra.prescribed("low_rank", 50, 0.1, 3, seed=0)
    assert (np.count_nonzero(s, axis=1) == 5).all()
    s = spectra.prescribed("log_uniform", 2000, 1e6, 1, seed=0)[0]
    assert stats.kstest(np.log(s / s[0]) / np.log(1e6), "uniform", args=(-1, 1)).pvalue > 1e-3
    with pytest.raises(ValueError, match="steep: no such spectrum"):
        spectra.prescribed("steep", 5, 1.0, 1, seed=0)

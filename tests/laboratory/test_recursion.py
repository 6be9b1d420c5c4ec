"""The scalar recursion: against polynomials, brute force, and its own laws."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.laboratory import recursion, spectra
from optimizers.coefficients import KELLER, SETS, TAYLOR, per_step

NAMES = [*SETS, "polar_express"]


def test_the_recursion_is_the_composed_polynomial() -> None:
    triples = [KELLER, TAYLOR]
    polynomials = [np.polynomial.Polynomial([0, a, 0, b, 0, c]) for a, b, c in triples]
    s = np.linspace(0, 1.2, 30).reshape(3, 10)
    expected = polynomials[1](polynomials[0](s))
    assert np.allclose(recursion.iterate(s, triples), expected, rtol=1e-13)
    assert recursion.slope_at_zero(triples) == pytest.approx(3.4445 * 15 / 8)
    assert recursion.diverged_at(s, triples) is None


def test_keller_maps_one_to_0_696_in_five_steps() -> None:
    assert recursion.iterate(1.0, [KELLER] * 5) == pytest.approx(0.696, abs=5e-4)


def test_divergence_is_silent_and_its_step_is_told() -> None:
    triples = [(4.0, 5.0, 1.0)] * 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.isfinite(recursion.iterate([0.5, 1.0], triples)).all()
        assert recursion.diverged_at([1.0], triples) == 2  # 10, then about 1e5
        assert not math.isfinite(recursion.mse([[0.5], [0.6]], triples).mean)
        assert recursion.threshold(triples, 0.5, 1.5) is None
        assert recursion.diverged_at([math.nan], [TAYLOR]) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 3, 5, 12])
def test_thresholds_and_ranges_agree_with_a_fine_grid(name: str, steps: int) -> None:
    triples = per_step(name, steps)
    grid = np.geomspace(1e-8, 1, 200_001)
    ends = recursion.iterate(grid, triples)
    bottom, top = recursion.image(grid[0], 1.0, triples)
    assert bottom <= ends.min() + 1e-12 and ends.max() <= top + 1e-12
    for low, high in ((0.5, 1.5), (0.7, 1.3)):
        outside = np.flatnonzero((ends < low) | (ends > high))
        found = recursion.threshold(triples, low, high)
        if len(outside) and outside[-1] == len(grid) - 1:
            assert found is None
            continue
        assert found is not None
        last = grid[outside[-1]] if len(outside) else 0.0
        assert last * (1 - 1e-9) <= found <= last * 1.001 + 1e-8


@given(
    st.lists(
        st.tuples(st.floats(0.5, 4), st.floats(-6, 2), st.floats(-1, 4)), min_size=1, max_size=3
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
@settings(max_examples=100)
def test_no_input_leaves_the_image(triples: list[tuple], one: float, other: float) -> None:
    low, high = sorted((one, other))
    bottom, top = recursion.image(low, high, triples)
    ends = recursion.iterate(np.linspace(low, high, 50), triples)
    slack = 1e-9 * max(1.0, abs(bottom), abs(top))
    if math.isfinite(top):
        assert (ends >= bottom - slack).all() and (ends <= top + slack).all()


def test_mse_counts_spectra_not_values_and_leaves_out_zeros() -> None:
    s = np.array([[0.9, 0.1], [0.8, 0.0]])
    found = recursion.mse(s, [TAYLOR])
    errors = (recursion.iterate(s, [TAYLOR]) - 1) ** 2
    rows = [errors[0].mean(), errors[1, 0]]
    assert found.mean == pytest.approx(np.mean(rows))
    half = 12.7062 * np.std(rows, ddof=1) / math.sqrt(2)  # Student's t for two samples
    assert found.high - found.mean == pytest.approx(half, rel=1e-4)
    alone = recursion.mse(s[:1], [TAYLOR])
    assert math.isfinite(alone.mean) and math.isnan(alone.low)


def test_keller_on_square_gaussians_leaves_the_published_error() -> None:
    """Su Jianlin, https://kexue.fm/archives/10592, n = m = 1024, T = 5: 0.04431."""
    found = recursion.mse(spectra.gaussian(1024, 1024, 60, seed=0), [KELLER] * 5)
    assert found.low - 1e-4 < 0.04431 < found.high + 1e-4

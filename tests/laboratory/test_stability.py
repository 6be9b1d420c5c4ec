"""The stability map: known triples land where they should, and what is steepest is."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from bench.laboratory import dynamics, recursion, stability
from bench.laboratory.settings import Settings
from optimizers.coefficients import (
    BASELINE,
    CUBIC,
    KELLER,
    SU,
    TAYLOR,
    best_quintic,
    polar_express,
)

CHEBYSHEV = (5.0, -20.0, 16.0)


@given(st.floats(1.05, 5), st.floats(-5, 0.9), st.floats(0.5, 2))
def test_a_place_is_a_triple(slope, multiplier, fixed_point):
    triple = dynamics.triple_at(slope, multiplier, fixed_point)
    found = dynamics.place(triple)
    np.testing.assert_allclose(found, (slope, multiplier, fixed_point), rtol=1e-6, atol=1e-6)


def test_taylor_is_the_flattest_quintic_at_its_fixed_point_one():
    """g(1) = 1 and g'(1) = g''(1) = 0 have one solution."""
    equations = [[1, 1, 1], [1, 3, 5], [0, 6, 20]]
    np.testing.assert_allclose(np.linalg.solve(equations, [1, 0, 0]), TAYLOR, atol=1e-12)
    np.testing.assert_allclose(dynamics.place(TAYLOR), (1.875, 0, 1), atol=1e-9)


@pytest.mark.parametrize(
    ("triple", "kind", "low", "high"),
    [
        (TAYLOR, "one value", 1, 1),
        (CUBIC, "one value", 1, 1),
        (BASELINE, "one value", 1, 1),
        (SU, "two values", 0.8365, 0.9516),
        (KELLER, "more values", 0.682, 1.134),
    ],
)
def test_known_triples_in_the_long_run(triple, kind, low, high):
    run = dynamics.long_run(*triple)
    assert dynamics.KINDS[run.kind] == kind
    np.testing.assert_allclose((run.low, run.high), (low, high), atol=1e-3)


def test_chebyshev_changes_sign_and_beyond_it_all_escapes():
    inside = [k * (1 - 1e-6) for k in CHEBYSHEV]
    assert dynamics.long_run(*inside).kind == dynamics.CHANGES_SIGN
    assert dynamics.long_run(5.2, -20.0, 16.0).kind == dynamics.ESCAPES
    assert np.isnan(dynamics.long_run(5.2, -20.0, 16.0).epsilon)


@given(st.floats(1.2, 4), st.floats(-2.5, 0.9), st.floats(0.5, 2))
@settings(max_examples=30)
def test_scaling_changes_nothing_but_the_size(slope, multiplier, size):
    """Where the values settle; a chaotic orbit differs by rounding."""
    here = dynamics.long_run(*dynamics.triple_at(slope, multiplier))
    there = dynamics.long_run(*dynamics.triple_at(slope, multiplier, size))
    if dynamics.ONE <= here.kind <= dynamics.TWO:
        assert there.kind == here.kind
        np.testing.assert_allclose(there.high, here.high * size, rtol=2e-3)
        np.testing.assert_allclose(there.epsilon, here.epsilon, atol=2e-3)


def test_the_map_agrees_with_iterating_many_inputs():
    """The slow way: every input on a fine grid, up to the first turning point."""
    slopes, multipliers = np.linspace(1.3, 3.6, 9), np.linspace(-1.9, 0.5, 7)
    plane = stability.survey(slopes, multipliers)
    for row, multiplier in enumerate(multipliers):
        for column, slope in enumerate(slopes):
            a, b, c = dynamics.triple_at(slope, multiplier)
            squares = np.roots([5 * c, 3 * b, a])
            real = squares[np.isreal(squares)].real
            top = np.sqrt(real[real > 0].min()) if (real > 0).any() else 0.5
            x = recursion.iterate(np.linspace(1e-3, 1, 500) * top, [(a, b, c)] * 600)
            kind = plane.long_run.kind[row, column]
            assert (kind == dynamics.ESCAPES) == (not np.isfinite(x).all())
            if kind == dynamics.ONE:
                np.testing.assert_allclose(x, 1, atol=2e-3)
            if kind >= dynamics.ONE:
                assert x.min() >= plane.long_run.low[row, column] * 0.98 - 1e-3
                assert x.max() <= plane.long_run.high[row, column] * 1.02 + 1e-3


def test_mere_boundedness_gives_chebyshev():
    """By Markov's inequality nothing bounded by 1 on [-1, 1] is steeper than T5 at zero."""
    np.testing.assert_allclose(dynamics.steepest_bounded(both_signs=True), CHEBYSHEV, rtol=1e-4)
    positive = dynamics.steepest_bounded(both_signs=False)
    bottom, top = recursion.image(0.0, 1.0, [positive])
    assert bottom >= 0 and top <= 1 and 4.2 < positive[0] < 4.27


@pytest.mark.parametrize("epsilon", [0.2, 0.318, 0.5])
def test_the_steepest_that_stays_is_the_best_quintic_of_that_error(epsilon):
    """The linear programme against Remez's algorithm: two ways to one polynomial.

    For small e they part: below 1 - e the polynomial may dip further than Remez's.
    """
    top = 1 + epsilon

    def error(low):
        return 1 - recursion.iterate(low, [best_quintic(low, top)]) - epsilon

    low = brentq(error, 1e-4, top * 0.99, xtol=1e-14)
    steepest = dynamics.steepest_staying(epsilon)
    np.testing.assert_allclose(steepest, best_quintic(low, top), rtol=1e-4)
    bottom, most = recursion.image(1 - epsilon, 1 + epsilon, [steepest] * 3)
    assert bottom > 1 - epsilon - 1e-4 and most < 1 + epsilon + 1e-4


def test_the_tightest_triple_beats_known_ones_and_no_set_of_five():
    for low in (2e-3, 1e-2):
        epsilon, triple = dynamics.tightest(low, 5)
        assert epsilon == dynamics.epsilon_after(triple, low, 5)
        for known in (KELLER, SU, TAYLOR, BASELINE):
            assert epsilon < dynamics.epsilon_after(known, low, 5)
        five = polar_express(5, low, cushion=0.0, safety=1.0)
        bottom, top = recursion.image(low, 1.0, five)
        assert epsilon > max(top - 1, 1 - bottom)  # five free triples can do no worse


def test_the_official_triple_against_the_steepest():
    plane = stability.survey(np.linspace(3.0, 3.9, 46), np.linspace(-2.2, -0.8, 71))
    official = stability.official_compared(plane)
    assert official["epsilon"] == pytest.approx(0.318, abs=1e-3)
    assert official["epsilon_of_its_slope_staying"] == pytest.approx(0.207, abs=1e-3)
    assert official["steepest_staying_at_its_epsilon"][0] == pytest.approx(3.667, abs=2e-3)
    assert official["steepest_limit_at_its_epsilon"] >= 3.66
    assert official["tightest_from_its_low"]["epsilon"] < official["epsilon_after_steps"]


def test_the_whole_map(tmp_path, monkeypatch):
    monkeypatch.setattr(stability, "SLOPES", np.linspace(1.2, 5, 60))
    monkeypatch.setattr(stability, "MULTIPLIERS", np.linspace(-5, 0.9, 60))
    monkeypatch.setattr(stability, "EPSILONS", (0.1, 0.3))
    monkeypatch.setattr(stability, "LOWS", (2e-3, 1e-2))
    monkeypatch.setattr(stability, "FITTED_SHAPE", (64, 64))
    monkeypatch.setattr(stability, "FITTED_STARTS", 3)
    asked = Settings(seed=0, results_dir=str(tmp_path), pictures=True)
    said: list[str] = []
    stability.run(asked, said.append)
    found = json.loads((tmp_path / "ortho" / "stability.json").read_text())
    assert found["sets"]["keller"]["kind"] == "more values"
    assert found["bounded"]["kind"] == "changes sign"
    assert found["steepest"][0]["limit"]["slope"] >= found["steepest"][0]["stay"][0]
    assert any("keller" in line for line in said)
    picture = (tmp_path / "ortho" / "stability.svg").read_text()
    assert all(name in picture for name in ("keller", "taylor", "Chebyshev"))

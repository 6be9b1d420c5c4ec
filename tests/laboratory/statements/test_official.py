"""The checks of the official coefficients: verdicts turn when what is measured does."""

from dataclasses import replace

import numpy as np
import pytest

from bench.laboratory import dynamics, recursion, search, spectra
from bench.laboratory.recursion import Estimate
from bench.laboratory.statements import official
from bench.laboratory.statements.official import taylor_steps
from optimizers.coefficients import KELLER, TAYLOR, polar_express

SQUARE, WIDE = (256, 256), (64, 512)


@pytest.fixture(scope="module")
def by_shape():
    return {shape: spectra.gaussian(*shape, 40, seed=0) for shape in (SQUARE, WIDE)}


def test_taylors_coefficients_are_derivatives(monkeypatch):
    check = official.taylor_is_second_order()
    assert check.verdict == "confirmed" and check.value == 0
    monkeypatch.setattr(official, "TAYLOR", (2.0, -1.5, 0.5))
    assert official.taylor_is_second_order().value == 0.25


def test_another_triple_is_steeper_for_the_same_distance(monkeypatch):
    check = official.official_is_steepest()
    assert check.verdict == "refuted" and check.high == pytest.approx(0.939, abs=1e-3)
    assert "stay 0.939" in check.condition and "bounded 0.809" in check.condition
    slope = dynamics.steepest_staying(0.2)[0]
    assert dynamics.epsilon_of_slope(slope) == pytest.approx(0.2, abs=1e-5)
    monkeypatch.setattr(dynamics, "steepest_staying", lambda epsilon: KELLER)
    assert official.official_is_steepest().verdict == "depends"  # by one reading alone
    monkeypatch.setattr(dynamics, "steepest_ending", lambda epsilon: KELLER)
    monkeypatch.setattr(dynamics, "steepest_bounded", lambda both_signs: KELLER)
    assert official.official_is_steepest().verdict == "confirmed"


def test_the_steepest_that_ends_near_one_does_and_is_no_flatter_than_what_stays():
    for epsilon in (0.1, 0.318):
        triple = dynamics.steepest_ending(epsilon)
        ends = dynamics.long_run(*triple)
        assert 1 - epsilon - 1e-6 < ends.low <= ends.high < 1 + epsilon + 1e-6
        assert triple[0] >= dynamics.steepest_staying(epsilon)[0]


def test_the_official_ones_end_about_one_and_others_at_it(by_shape, monkeypatch):
    check = official.official_does_not_converge(by_shape[WIDE])
    assert check.verdict == "confirmed" and 0.6 < check.low < check.high < 1.2
    monkeypatch.setattr(official, "KELLER", TAYLOR)
    assert official.official_does_not_converge(by_shape[WIDE]).verdict == "refuted"


def test_taylor_is_better_where_no_value_is_small(by_shape):
    check = official.official_beats_taylor(by_shape)
    assert check.verdict == "depends" and "at 64x512;" in check.condition
    errors = [
        np.mean((recursion.iterate(by_shape[WIDE], [k] * 5) - 1) ** 2) for k in (KELLER, TAYLOR)
    ]
    assert check.high == pytest.approx(errors[0] / errors[1])
    for shape, verdict in ((SQUARE, "confirmed"), (WIDE, "refuted")):
        one = {shape: by_shape[shape]}
        assert official.official_beats_taylor(one).verdict == verdict
        assert official.fewer_steps(one).verdict == verdict


def test_steps_to_an_error_are_counted(by_shape):
    rows = by_shape[SQUARE]
    for error in (0.3, 1e-3):
        steps = taylor_steps(rows, error)
        found = [recursion.mse(rows, [TAYLOR] * t).mean for t in (steps - 1, steps)]
        assert found[1] <= error < found[0]


def test_a_triple_a_step_gains_more_than_half(by_shape, monkeypatch):
    rows, unseen = by_shape[SQUARE][:20], by_shape[SQUARE][20:]
    fit = search.single(rows, 5, 3, seed=0)
    check = official.little_to_gain_by_steps(rows, unseen)
    assert 0.2 < official.little_to_gain(unseen, fit).value < check.value  # of one triple alone
    assert check.verdict == "refuted" and 0.5 < check.low < check.value < check.high < 1
    express = (
        1 - recursion.mse(unseen, polar_express(5)).mean / recursion.mse(unseen, [KELLER] * 5).mean
    )
    assert f"polar_express {express:.1%}" in check.condition
    same = replace(fit, triples=[KELLER])
    monkeypatch.setattr(official, "NAMES", ("keller", "taylor"))
    monkeypatch.setattr(official.search, "minimax", lambda *_: same)
    assert official.little_to_gain_by_steps(rows, unseen).verdict == "confirmed"
    for removed, verdict in ((0.3, "confirmed"), (0.6, "refuted"), (0.5, "depends")):
        estimate = Estimate(removed, removed - 0.05, removed + 0.05)
        monkeypatch.setattr(official, "share_removed", lambda *_, found=estimate: found)
        assert official.little_to_gain(unseen, same).verdict == verdict


def test_the_same_set_removes_nothing(by_shape):
    assert official.share_removed(by_shape[WIDE], [KELLER] * 5) == (0, 0, 0)
    exact = official.share_removed(by_shape[WIDE], [TAYLOR] * 30)
    assert exact.mean == pytest.approx(1)

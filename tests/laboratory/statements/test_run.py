"""Statements of both notes: verdicts follow from what is measured, not from what is expected."""

import json

import numpy as np
import pytest

from bench.laboratory import matrices, recursion, search, spectra
from bench.laboratory.recursion import Estimate
from bench.laboratory.settings import Settings, Source
from bench.laboratory.statements import (
    basis,
    coefficients,
    compiling,
    convergence,
    directions,
    embeddings,
    run,
    shards,
)
from optimizers.coefficients import KELLER, TAYLOR

SHAPES = [(64, 64), (64, 256)]


@pytest.fixture(scope="module")
def rows():
    return spectra.gaussian(1024, 1024, 60, seed=0)


@pytest.fixture(scope="module")
def by_shape():
    return {shape: spectra.gaussian(*shape, 200, seed=0) for shape in SHAPES}


def test_three_products_a_step_and_fifteen_in_five():
    assert coefficients.products_a_step().value == 3
    assert coefficients.products_in_five_steps().value == 15
    assert coefficients.products_in_five_steps().verdict == "confirmed"
    assert coefficients._products("x", "x", 1, 4).verdict == "refuted"


def test_the_official_figure_is_reproduced(rows):
    check = coefficients.official_mse(rows)
    assert check.verdict == "confirmed" and check.low < 0.0443 < check.high
    assert check.value == recursion.mse(rows, [KELLER] * 5).mean


def test_the_fitted_figure_is_reproduced(rows):
    fit = search.single(rows, 5, 12, seed=0)
    check = coefficients.fitted_mse(fit, spectra.gaussian(1024, 1024, 60, seed=1))
    assert check.verdict == "confirmed"
    assert check.value == pytest.approx(0.02733, abs=2e-4)


def test_the_theoretical_figure_is_another_sets(rows):
    """0.18278 is the official set's after three steps."""
    check = coefficients.taylor_mse(rows)
    assert check.verdict == "refuted"
    assert check.value == pytest.approx(0.3136, abs=1e-3)
    assert "keller, 3 steps, mean (s-1)^2" in check.condition


def test_a_figure_of_nothing_matches_nothing(rows):
    assert coefficients.matches(7.0, rows) == []


def test_a_figure_agrees_within_both_errors_only():
    found = Estimate(0.5, 0.4999, 0.5001)
    assert coefficients._agrees(found, 0.50012, samples=1000)
    assert not coefficients._agrees(found, 0.50016, samples=1000)


def test_the_output_is_not_uniform(by_shape):
    check = coefficients.uniform(by_shape)
    assert check.verdict == "refuted" and 0.1 < check.low <= check.value <= check.high <= 1


def test_kolmogorovs_distance_is_measured_right(monkeypatch):
    """With the iteration replaced by a map onto (0.5, 1.5), the statement holds."""
    monkeypatch.setattr(coefficients.recursion, "iterate", lambda s, triples: 0.5 + np.asarray(s))
    even = np.linspace(0, 1, 1000)[None]
    check = coefficients.uniform({(1000, 1000): even})
    assert check.verdict == "confirmed" and check.value < 2e-3


def test_stability_over_shapes_is_a_ratio(by_shape):
    check = coefficients.stable_over_shapes(by_shape)
    errors = [recursion.mse(rows, [KELLER] * 5).mean for rows in by_shape.values()]
    assert check.value == pytest.approx(max(errors) / min(errors))
    one = {SHAPES[0]: by_shape[SHAPES[0]]}
    assert coefficients.stable_over_shapes(one).verdict == "confirmed"


def test_precision_is_compared_with_fp64_on_the_same_matrices():
    stack = matrices.random(Source("gaussian"), (128, 128), 4, seed=0).form()
    check = coefficients.precision([stack], "gaussian")
    assert check.verdict == "confirmed" and check.n == 4
    assert 1e-5 < check.value < 0.05  # bf16 does change something


def test_exactness_is_left_to_training():
    assert coefficients.exactness().verdict == "open"


def test_taylor_converges_in_the_steps_that_are_counted(rows):
    assert convergence.taylor_converges(rows).verdict == "confirmed"
    for tolerance in (1e-2, 1e-6):
        check = convergence.taylor_steps(rows[:1], tolerance, "Gaussian")
        steps = int(check.value)
        worst = [
            np.abs(recursion.iterate(rows[0], [TAYLOR] * t) - 1).max() for t in (steps - 1, steps)
        ]
        assert worst[1] <= tolerance < worst[0]


def test_random_triples_are_stable():
    triples = convergence.random_stable(40, seed=0)
    assert len(triples) == 40
    s = np.linspace(0, 0.3, 50)[1:]
    for triple in triples:
        end = recursion.iterate(s, [triple] * 100)
        assert (end > 0).all() and (end < 3).all()


def test_a_larger_slope_lifts_small_values():
    assert convergence.slope_of_named_sets().verdict == "confirmed"
    assert convergence.steps_to_lift([KELLER] * 10) < convergence.steps_to_lift([TAYLOR] * 20)


def test_correlations_have_verdicts_by_their_intervals():
    x = np.arange(100.0)
    noise = np.random.default_rng(0).standard_normal(100)

    def verdict(y):
        return convergence._correlation("name", "statement", x, y, "how").verdict

    assert verdict(2 * x + noise) == "confirmed"
    assert verdict(noise) == "refuted"
    assert verdict(x + 100 * noise) == "depends"


def test_steep_triples_are_told_from_flat_ones(rows):
    flat, steep = convergence.slope_and_error(rows, 300, seed=0)
    assert flat.verdict == "confirmed" and steep.verdict != "confirmed"
    assert flat.n + steep.n == 300 and "slope 3." in steep.condition


@pytest.mark.more
def test_every_check_is_shown_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SHAPES", SHAPES)
    monkeypatch.setattr(run, "MATRIX_SHAPES", [(64, 64)])
    monkeypatch.setattr(run, "TRIPLES", 60)
    monkeypatch.setattr(basis, "BASES", 2)
    monkeypatch.setattr(basis, "RATES", (0.1,))
    monkeypatch.setattr(directions, "SIDE", 64)
    monkeypatch.setattr(shards, "SHAPES", [(64, 64)])
    monkeypatch.setattr(embeddings, "SEQUENCES", (1,))
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    monkeypatch.setattr(compiling, "SHAPES", [(1, 8, 8)])
    said: list[str] = []
    sources = [Source("gaussian")]
    asked = Settings(seed=0, results_dir=str(tmp_path), samples=8, sources=sources)
    found = run.run(asked, said.append)
    whole = json.loads((tmp_path / "ortho" / "checks.json").read_text())
    assert [one["name"] for one in whole["checks"]] == [check.name for check in found]
    assert len({check.name for check in found}) == len(found) == 52
    for check in found:
        assert check.verdict in ("confirmed", "refuted", "depends", "open")
        assert check.condition and check.source and check.statement
        assert (check.value is None) == (check.verdict == "open")
    open_ones = [check.name for check in found if check.verdict == "open"]
    assert open_ones == ["hardware", "exactness"]

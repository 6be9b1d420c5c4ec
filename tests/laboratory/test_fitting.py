"""Fitted coefficients: known optima are found, no neighbour is better, what is written works."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bench.laboratory import fitting, recursion, search, spectra
from bench.laboratory.settings import Settings
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from optimizers.coefficients import CANS, CUBIC5, KELLER, SU, YOU5, YOU6, per_step, polar_express
from optimizers.orthogonalize import Orthogonalizer

# As published in https://kexue.fm/archives/10922, in units of 1/1024: by gradient descent on the
# mean of the 50 largest errors over 10,001 inputs.
SU_X = [
    (4140, -7553, 3571),
    (3892, -6637, 2973),
    (3668, -6456, 3021),
    (3248, -6211, 3292),
    (2792, -5759, 3796),
    (3176, -5507, 4048),
]
GRID = np.linspace(0, 1, 10_001)


@pytest.fixture(scope="module")
def square():
    return spectra.gaussian(1024, 1024, 40, seed=0)


@pytest.fixture(scope="module")
def small():
    return spectra.gaussian(64, 64, 200, seed=0)


def largest_error(triples, low: float) -> float:
    return max(abs(end - 1) for end in recursion.image(low, 1.0, triples))


def mean_of_worst(triples, count: int) -> float:
    return np.sort(np.abs(recursion.iterate(GRID, triples) - 1))[-count:].mean()


def test_the_known_optimum_for_1024_and_five_steps(square):
    """Su Jianlin's row (1024, 1024, 5), found here with other samples and another method."""
    fit = search.single(square, steps=5, starts=8, seed=0)
    np.testing.assert_allclose(fit.triples[0], (3.298, -4.138, 1.725), rtol=2e-3)
    assert fit.mse == pytest.approx(0.0272, abs=3e-4)
    assert recursion.mse(square, [KELLER] * 5).mean == pytest.approx(0.0442, abs=3e-4)
    assert fit.certain and fit.agreeing >= 3 and fit.spread < 1e-4 and fit.top < 1.25
    assert all(0 < error < 5e-3 for error in fit.errors)


def test_no_neighbour_of_the_optimum_is_better(small):
    fit = search.single(small, steps=5, starts=6, seed=0)
    values = search.nodes(small)
    best = recursion.mse(values, fit.triples * 5).mean
    rng = np.random.default_rng(0)
    for _ in range(100):
        other = np.array(fit.triples[0]) * (1 + 1e-3 * rng.standard_normal(3))
        assert recursion.mse(values, [other] * 5).mean > best


def test_the_standard_errors_are_those_of_new_samples():
    """The spread of fits to independent samples is what one fit says of itself."""
    fits = [
        search.single(spectra.gaussian(32, 32, 50, seed), steps=4, starts=2, seed=0)
        for seed in range(16)
    ]
    seen = np.std([fit.triples[0] for fit in fits], axis=0, ddof=1)
    said = np.mean([fit.errors for fit in fits], axis=0)
    assert (seen < 2 * said).all() and (said < 2 * seen).all()


@pytest.mark.parametrize("steps", [3, 5])
def test_the_jacobian_is_the_derivative(small, steps):
    values = search.nodes(small, 50)
    p = np.array([3.6, -5.3, 2.9])  # so steep that the ceiling counts
    jacobian = search._jacobian(p, values, steps)
    for i, h in enumerate(1e-6 * np.eye(3)):
        ahead, behind = (search._residuals(p + sign * h, values, steps) for sign in (1, -1))
        np.testing.assert_allclose(jacobian[:, i], (ahead - behind) / 2e-6, atol=1e-4, rtol=1e-4)


def test_without_the_ceiling_three_steps_blow_up(square, monkeypatch):
    bounded = search.single(square, steps=3, starts=6, seed=0)
    assert bounded.top < search.CEILING + 0.02
    monkeypatch.setattr(search, "WEIGHT", 0.0)
    free = search.single(square, steps=3, starts=6, seed=0)
    assert free.mse < bounded.mse
    assert recursion.iterate(1.0, free.triples * 3) > 1e6  # a matrix of rank one
    assert search.fixed_points(free.triples[0]) == []


@given(st.floats(0.1, 5), st.floats(0.3, 1), st.floats(1.01, 2))
def test_fixed_points_and_back(kappa, x1, x2):
    triple = search.from_fixed_points(kappa, x1, x2)
    np.testing.assert_allclose(search.fixed_points(triple), (x1, x2), rtol=1e-6)
    np.testing.assert_allclose(recursion.iterate([x1, x2], [triple]), (x1, x2), rtol=1e-9)


@pytest.mark.parametrize(
    ("published", "low"),
    [
        (polar_express(5), 1e-3),
        (polar_express(5, safety=1.0), 1e-3),
        (CANS, 1e-3),
        (YOU5, 1e-3),
        (YOU6, 1e-3),
        (CUBIC5, 7e-3),
    ],
)
def test_minimax_beats_the_published_sets_on_their_interval(published, low):
    ours = polar_express(len(published), low, cushion=0.0, safety=1.0)
    assert largest_error(ours, low) < largest_error(published, low)


@pytest.mark.parametrize(
    ("published", "count"),
    [(np.array(SU_X) / 1024, 50), (np.array([SU] * 5), 50), (np.array(YOU6), 50)],
)
def test_minimax_beats_gradient_descent_on_its_own_objective(published, count):
    steps = len(published)
    ours = min(
        mean_of_worst(polar_express(steps, low, cushion=0.0, safety=1.0), count)
        for low in np.geomspace(3e-4, 3e-3, 20)
    )
    assert ours < mean_of_worst(published, count)


def test_minimax_finds_the_best_interval(small):
    fit = search.minimax(small, steps=4, starts=30)
    assert fit.certain and len(fit.triples) == 4
    for low in fit.low * np.array([0.5, 0.9, 1.1, 2]):
        other = polar_express(4, float(low), cushion=0.0, safety=1.0)
        assert recursion.mse(small, other).mean > fit.mse
    rng = np.random.default_rng(0)
    least = largest_error(fit.triples, fit.low)
    for _ in range(50):
        shifted = np.array(fit.triples) * (1 + 1e-4 * rng.standard_normal((4, 3)))
        assert largest_error(shifted, fit.low) > least


def settings(folder, **changes) -> Settings:
    file = OmegaConf.to_container(OmegaConf.load(CONF / "ortho.yaml"))
    small = {"shape": "32x64", "samples": 20, "starts": 6, "steps": 4, **changes}
    return Settings(seed=0, results_dir=str(folder), fitting=file["fitting"] | small)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Fit with these changes to small settings; returns (record, the written block)."""
    monkeypatch.setattr(fitting, "FITTED", tmp_path / "fitted.yaml")
    monkeypatch.setattr(fitting, "TRAVEL", [(16, 16), (16, 64)])

    def run(**changes):
        found = fitting.run(settings(tmp_path, **changes), lambda text: None)
        (file,) = (tmp_path / "ortho").glob("fitting-32x64-T4-*.json")
        assert json.loads(file.read_text())["chosen"] == found["chosen"]
        return found, OmegaConf.to_container(OmegaConf.load(tmp_path / "fitted.yaml"))

    return run


@pytest.mark.parametrize("kind", fitting.KINDS)
def test_what_is_written_is_what_was_fitted(fit, kind):
    found, block = fit(kind=kind)
    triples = found["fits"][found["chosen"]]["triples"]
    assert len(triples) == (1 if kind == "single" else 4)
    np.testing.assert_allclose(block["coefficients"], triples, atol=1e-6)
    assert set(block) == {"name", "coefficients", "steps", "method", "dtype", "norm"}
    assert Orthogonalizer(**block).steps == 4
    again = recursion.mse(spectra.gaussian(32, 64, 20, seed=1), per_step(block["coefficients"], 4))
    assert again.mean == pytest.approx(found["errors"][found["chosen"]]["mean"], rel=1e-3)
    assert again.mean < found["errors"]["keller"]["mean"]


def test_in_bf16_the_choice_is_by_the_iteration_on_matrices(fit):
    found, block = fit(kind="minimax", dtype="bf16")
    errors = {name: e["mean"] for name, e in found["errors"].items() if name.startswith("minimax")}
    assert found["chosen"] == min(errors, key=errors.get)
    assert block["dtype"] == "bf16"


def test_a_prescribed_source(fit):
    found, _ = fit(source="condition:100")
    assert found["asked"]["source"] == "condition:100"
    assert found["fits"]["single"]["low"] > 1e-3


def test_momentum_of_all_layers_is_pooled(train, tmp_path, fit):
    train("train.save_momentum_every=3")
    asked = {"source": "momentum", "shape": "32x32", "dtype": "fp32"}
    there = replace(settings(tmp_path, **asked), momentum=None, roles=["hidden"], layers=None)
    found = fitting.run(there, lambda text: None)
    assert found["samples"] == 2 * 4  # layers; q, k, v and the output projection
    assert not found["held_out"] and found["errors"]["keller"]["mean"] > 0
    with pytest.raises(UserError, match=r"fitting.shape=7x7.*32x32"):
        fitting.samples(fitting.check(there.fitting | {"shape": "7x7"}), there)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "best"}, ["fitting.kind=best", "minimax"]),
        ({"dtype": "fp8"}, ["fitting.dtype=fp8", "bf16"]),
        ({"steps": 0}, ["fitting.steps=0", "at least 1"]),
        ({"samples": 1}, ["fitting.samples=1", "at least 2"]),
        ({"starts": True}, ["fitting.starts=True", "whole number"]),
        ({"shape": "0x4"}, ["fitting", "0x4"]),
        ({"source": "normal"}, ["fitting", "normal", "gaussian"]),
        ({"shape": "2048x2048", "dtype": "bf16"}, ["fitting.dtype=bf16", "2048x2048", "fp64"]),
    ],
)
def test_a_mistake_is_answered_before_work(tmp_path, changes, words):
    with pytest.raises(UserError) as info:
        fitting.run(settings(tmp_path, **changes), lambda text: None)
    assert all(word in str(info.value) for word in words) and "\n" not in str(info.value)


def test_the_fitted_set_trains(train):
    outcome, record, _ = train("orthogonalizer=fitted")
    assert outcome["how"] == "finished"
    block = record["config"]["optimizer"]["roles"]["hidden"]["orthogonalizer"]
    assert block["name"] == "fitted" and len(block["coefficients"][0]) == 3

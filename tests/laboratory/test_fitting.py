"""Fitted coefficients: known optima are found, no neighbour is better, what is written works."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bench.laboratory import fitting, matrices, recursion, search, spectra
from bench.laboratory.settings import Settings, Source
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
    objective = search.Objective(values, steps, search.CEILING)
    jacobian = objective.jacobian(p)
    for i, h in enumerate(1e-6 * np.eye(3)):
        ahead, behind = (objective.residuals(p + sign * h) for sign in (1, -1))
        np.testing.assert_allclose(jacobian[:, i], (ahead - behind) / 2e-6, atol=1e-4, rtol=1e-4)


def test_the_best_triple_for_three_steps_lies_beyond_the_ceiling(square):
    """What no value of the spectra needs may escape: a ceiling on it costs much of the optimum."""
    bounded = search.single(square, steps=3, starts=6, seed=0, ceiling=search.CEILING)
    assert bounded.top < search.CEILING + 0.02
    free = search.single(square, steps=3, starts=6, seed=0)
    assert free.mse < 0.95 * bounded.mse
    assert recursion.iterate(1.0, free.triples * 3) > 1e6  # a matrix of rank one
    assert search.fixed_points(free.triples[0]) == []


def test_a_fit_is_never_worse_than_what_is_known(small):
    best = search.single(small, steps=3, starts=16, seed=0)
    poor = search.single(small, steps=3, starts=1, seed=0)
    again = search.single(small, steps=3, starts=1, seed=0, known=best.triples)
    assert again.mse <= best.mse * (1 + 1e-9) and again.starts == 2
    assert poor.mse >= again.mse * (1 - 1e-9)


@pytest.mark.parametrize(("slope", "place", "height"), [(4.0, 0.6, 1.2), (2.5, 1.1, 0.9)])
def test_a_peaked_triple_has_its_turning_point_there(slope, place, height):
    a, b, c = search.peaked(slope, place, height)
    assert a == slope
    assert recursion.iterate(place, [(a, b, c)]) == pytest.approx(height)
    assert a + 3 * b * place**2 + 5 * c * place**4 == pytest.approx(0, abs=1e-9)


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
    sources = [Source("gaussian")]
    return Settings(
        seed=0, results_dir=str(folder), sources=sources, fitting=file["fitting"] | small
    )


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    """The file that fitting.replace=true replaces; other shapes are few and small."""
    monkeypatch.setattr(fitting, "FITTED", tmp_path / "fitted.yaml")
    monkeypatch.setattr(fitting, "TRAVEL", [(16, 16), (16, 64)])
    fitting.FITTED.write_text("as it was")
    return fitting.FITTED


@pytest.fixture
def fit(tmp_path, fitted):
    """Fit with these changes to small settings; returns (record, the written block)."""

    def run(**changes):
        found = fitting.run(settings(tmp_path, **changes), lambda text: None)
        (file,) = (tmp_path / "ortho").glob("fitting-32x64-T4-*.json")
        assert json.loads(file.read_text())["chosen"] == found["chosen"]
        return found, OmegaConf.to_container(OmegaConf.load(file.with_suffix(".yaml")))

    return run


def test_a_fit_replaces_nothing_unasked(tmp_path, fitted):
    """Neither the set that experiments train with nor a record that was there: each is written
    beside it, and the person is told where."""

    def run(**changes) -> list[str]:
        said: list[str] = []
        fitting.run(settings(tmp_path, **changes), said.append)
        return said

    run()
    (record,) = (tmp_path / "ortho").glob("*.json")
    first = record.read_bytes()
    (beside,) = [line for line in run(starts=3) if ".new.json" in line]
    assert ".new.yaml" in beside and "fitting.replace=true" in beside
    assert record.read_bytes() == first and fitted.read_text() == "as it was"
    run(starts=3, replace=True)
    assert record.read_bytes() != first and "coefficients" in fitted.read_text()


def test_a_refit_is_not_worse(tmp_path, fitted):
    found = [
        fitting.run(settings(tmp_path, steps=3, starts=starts), lambda text: None)["fits"]
        for starts in (24, 3)
    ]
    assert found[1]["single"]["mse"] <= found[0]["single"]["mse"] * (1 + 1e-6)
    assert found[1]["single"]["starts"] > 3  # the earlier triples besides


def test_a_triple_that_lets_inputs_escape_says_so(tmp_path, fitted):
    said: list[str] = []
    asked = {"steps": 3, "shape": "1024x1024", "samples": 4}
    found = fitting.run(settings(tmp_path, **asked), said.append)
    assert found["chosen"] == "single" and found["fits"]["single"]["top"] == np.inf
    assert "fitting.kind=bounded" in said[-1]
    found = fitting.run(settings(tmp_path, kind="bounded", **asked), said.append)
    assert found["chosen"] == "bounded" and found["fits"]["bounded"]["top"] < 1.6
    assert "fitting.kind=bounded" not in said[-1]


@pytest.mark.parametrize("kind", fitting.KINDS)
def test_what_is_written_is_what_was_fitted(fit, kind):
    found, block = fit(kind=kind)
    triples = found["fits"][found["chosen"]]["triples"]
    assert len(triples) == (4 if kind == "minimax" else 1)
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
    read = {"momentum": None, "roles": ["hidden"], "layers": None}
    there = replace(settings(tmp_path, **asked), **read)
    found = fitting.run(there, lambda text: None)
    assert found["samples"] == 2 * 4  # layers; q, k, v and the output projection
    assert not found["held_out"] and found["errors"]["keller"]["mean"] > 0
    with pytest.raises(UserError, match=r"fitting.shape=7x7.*32x32"):
        fitting.run(replace(settings(tmp_path, **asked | {"shape": "7x7"}), **read), print)


def test_momenta_of_all_shapes_are_one_sample(train, tmp_path, fitted):
    """As `fit=true sources=momentum` asks: each matrix counts as its own values do."""
    train("train.save_momentum_every=3")
    asked = settings(tmp_path, source=None, shape=None)
    there = replace(
        asked, sources=[Source("momentum")], momentum=None, roles=["hidden"], layers=None
    )
    found = fitting.run(there, lambda text: None)
    assert found["samples"] == 2 * 6  # and mlp in, mlp out
    problems = list(matrices.momentum(there))
    errors = [recursion.mse(p.spectra, [KELLER] * 4).mean for p in problems]
    weights = [len(p.spectra) for p in problems]
    assert found["errors"]["keller"]["mean"] == pytest.approx(np.average(errors, weights=weights))
    assert list(tmp_path.glob("ortho/fitting-all-T4-fp64-momentum6_hidden.yaml"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "best"}, ["fitting.kind=best", "minimax"]),
        ({"dtype": "fp8"}, ["fitting.dtype=fp8", "bf16"]),
        ({"steps": 0}, ["fitting.steps=0", "at least 1"]),
        ({"samples": 1}, ["fitting.samples=1", "at least 2"]),
        ({"starts": True}, ["fitting.starts=True", "whole number"]),
        ({"replace": "all"}, ["fitting.replace=all", "True"]),
        ({"source": "momentum", "shape": None, "dtype": "bf16"}, ["fitting.shape=None", "fp64"]),
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

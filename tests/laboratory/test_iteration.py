"""The iteration on matrices against the scalar recursion and the exact polar factor."""

import numpy as np
import pytest
import torch

from bench.laboratory import cost, iteration, matrices, recursion
from bench.laboratory.settings import Source
from bench.measuring import flops
from optimizers.coefficients import SETS, per_step

pytestmark = pytest.mark.cpu

SOURCES = [Source("gaussian"), Source("condition", 1e3), Source("log_uniform", 100.0)]
SOURCES += [Source("power_law", 1.0), Source("low_rank", 0.25)]


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("shape", [(20, 20), (12, 30), (30, 12)])
def test_formed_matrices_have_the_spectrum_and_polar_factor_they_say(source, shape):
    X, Q, s = matrices.formed(source, shape, 3, seed=0)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    assert X.shape == (3, *shape) and np.allclose(S.numpy(), s, atol=1e-14)
    assert torch.allclose(torch.linalg.vector_norm(X, dim=(1, 2)), torch.ones(3).double())
    expected = (U * (S > 1e-12).unsqueeze(-2)) @ Vh
    assert torch.allclose(Q, expected, atol=1e-9)


@pytest.mark.parametrize("form", ["newton_schulz", "gram", "auto"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp64", 1e-10), ("fp32", 2e-4)])
@pytest.mark.parametrize("name", [*SETS, "polar_express"])
def test_matrices_follow_the_recursion(form, dtype, tolerance, name):
    """Steps that oscillate about 1 multiply a rounding error, so fp32 has some room."""
    triples = per_step(name, 5)
    for shape in ((24, 24), (16, 48), (48, 16)):
        formed = matrices.formed(Source("gaussian"), shape, 2, seed=1)
        got = iteration.on_matrices(formed, triples, form, dtype)
        want = iteration.on_spectra(formed.s_bk, triples)
        for field in iteration.Outcome._fields:
            assert np.allclose(getattr(got, field), getattr(want, field), atol=tolerance), field


def test_distances_of_the_recursion_are_those_of_its_singular_values():
    s = np.array([[0.8, 0.5, 0.2], [0.9, 0.4, 0.0]])
    triples = per_step("taylor", 2)
    ends = recursion.iterate(s, triples)
    outcome = iteration.on_spectra(s, triples)
    assert outcome.relative_error_b[0] ** 2 == pytest.approx(recursion.mse(s[:1], triples).mean)
    assert outcome.cosine_b[1] == pytest.approx(ends[1].sum() / np.linalg.norm(ends[1]) / 2**0.5)
    squares = (ends[1, :2] ** 2 - 1) ** 2
    assert outcome.orthogonality_error_b[1] == pytest.approx(squares.mean() ** 0.5)


@pytest.mark.parametrize("form", ["newton_schulz", "gram"])
def test_divergence_has_the_step_of_the_recursion(form):
    triples = [(4.0, 5.0, 1.0)] * 6
    formed = matrices.formed(Source("condition", 10.0), (8, 8), 2, seed=0)
    step = recursion.diverged_at(formed.s_bk, triples)
    got = iteration.on_matrices(formed, triples, form, "fp64")
    assert isinstance(step, int) and got == step


def test_rounding_alone_can_drive_a_set_to_divergence():
    """Past its own steps, "su" ends close below where its iteration escapes; bf16 steps over."""
    formed = matrices.formed(Source("gaussian"), (64, 64), 8, seed=0)
    triples = per_step("su", 12)
    assert recursion.diverged_at(formed.s_bk, triples) is None
    assert isinstance(iteration.on_matrices(formed, triples, "newton_schulz", "bf16"), int)
    for kept in ("fp64", "fp32"):
        outcome = iteration.on_matrices(formed, triples, "newton_schulz", kept)
        assert outcome.s_bk.max() < 1.19


def test_exact_is_exact():
    formed = matrices.formed(Source("condition", 100.0), (10, 15), 2, seed=0)
    outcome = iteration.on_matrices(formed, [], "exact", "fp64")
    assert np.allclose(outcome.s_bk, 1) and (outcome.relative_error_b < 1e-12).all()
    assert np.allclose(outcome.cosine_b, 1) and (outcome.orthogonality_error_b < 1e-12).all()


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16)])
def test_plain_newton_schulz_takes_three_products_a_step_and_cubics_two(shape):
    n, m = sorted(shape)
    quintic = cost.count("newton_schulz", shape, per_step("keller", 5), "fp32")
    assert quintic == (15, 5 * (4 * n * n * m + 2 * n**3))
    assert cost.count("newton_schulz", shape, per_step("cubic5", 5), "fp32") == (10, 20 * n * n * m)
    assert cost.count("exact", shape, [], "fp32") == (None, None)


@pytest.mark.parametrize("form", ["newton_schulz", "gram"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_counts_without_storage_are_those_of_a_real_run(form, dtype):
    from torch.utils.flop_counter import FlopCounterMode

    from optimizers.orthogonalize.iteration import DTYPES, orthogonalize

    triples = per_step("you5", 6)
    X = torch.randn(1, 16, 48).to(DTYPES[dtype])
    with FlopCounterMode(display=False) as counter:
        products = flops.count(lambda: orthogonalize(X, triples, form)).products
    counted = cost.count(form, (16, 48), triples, dtype)
    assert counted == (products, counter.get_total_flops())


def test_a_single_row_needs_no_product():
    assert cost.count("newton_schulz", (1, 9), per_step("keller", 5), "fp32") == (0, 0)
    formed = matrices.formed(Source("gaussian"), (1, 9), 2, seed=0)
    outcome = iteration.on_matrices(formed, per_step("keller", 5), "newton_schulz", "fp64")
    assert np.allclose(outcome.s_bk, 1)

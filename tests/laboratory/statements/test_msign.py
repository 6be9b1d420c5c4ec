"""The checks of msign beside element-wise maps, and of norms and traces: numbers against laws."""

import math

import numpy as np
import pytest
import torch

from bench.laboratory import matrices
from bench.laboratory.statements import msign
from bench.laboratory.statements.msign import best_elementwise, sine
from tests.helpers.laboratory import case as small


@pytest.fixture(scope="module")
def found():
    return [small("gaussian"), small("power_law", 1.0), small("low_rank", 0.25)]


def test_the_nearest_element_wise_map_is_found():
    X = torch.randn(300, 300, dtype=torch.float64)
    assert best_elementwise(X, torch.tanh(3 * X)) < 0.02
    assert best_elementwise(X, torch.randn_like(X)) > 0.99
    Q = matrices.decomposed(X[None]).msign_bnm[0]
    assert best_elementwise(X, Q) == pytest.approx(sine(X, Q), abs=0.01)  # of Gaussian: linear
    assert sine(X, Q) == pytest.approx(math.sqrt(1 - (8 / (3 * math.pi)) ** 2), abs=0.01)


def test_no_element_wise_map_is_msign(found):
    check = msign.elementwise_reaches(found[:2])
    assert check.verdict == "confirmed" and check.low > 0.3
    small_values = [
        case._replace(stack=case.stack._replace(X_bnm=case.stack.msign_bnm)) for case in found
    ]
    assert msign.elementwise_reaches(small_values).verdict == "refuted"


def test_msign_is_the_steepest_step(found):
    check = msign.steepest_in_spectral_norm(found)
    assert check.verdict == "depends" and 0.6 < check.low <= check.high < 0.95
    X = found[0].stack.X_bnm[0].numpy()
    U = msign.official(found[0], "fp32")[0].numpy()
    share = (X * U).sum() / (np.linalg.norm(U, 2) * np.linalg.norm(X, "nuc"))
    assert check.low - 0.1 < share <= 1
    worse = [case._replace(stack=case.stack._replace(msign_bnm=case.stack.X_bnm)) for case in found]
    assert msign.steepest_in_spectral_norm(worse).verdict == "refuted"


def test_shuffling_entries_changes_the_spectral_norm_alone(found):
    check = msign.norms(found, seed=0)
    assert check.verdict == "confirmed" and check.high > 0.3
    assert msign.norms(found[:1], seed=0).verdict == "depends"


def test_the_eigenvalues_add_up_to_the_trace(monkeypatch):
    check = msign.trace_is_sum_of_eigenvalues(seed=0)
    assert check.verdict == "confirmed" and check.value < 1e-10
    monkeypatch.setattr(torch.linalg, "eigvals", torch.linalg.svdvals)
    assert msign.trace_is_sum_of_eigenvalues(seed=0).verdict == "refuted"

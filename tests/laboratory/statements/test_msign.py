"""The checks of directions and scale: numbers against loops over singular vectors, and laws."""

import math

import numpy as np
import pytest
import torch

from bench.laboratory import matrices
from bench.laboratory.settings import Source
from bench.laboratory.statements import msign
from bench.laboratory.statements.msign import best_elementwise, off_directions, sine


def small(kind: str, value: float | None = None, shape=(24, 32)) -> msign.Case:
    source = Source(kind, value)
    return msign.case(str(source), matrices.formed(source, shape, 2, seed=0))


@pytest.fixture(scope="module")
def found():
    return [small("gaussian"), small("power_law", 1.0), small("low_rank", 0.25)]


def test_what_is_off_the_directions_is_what_other_pairs_of_vectors_make(found):
    case = small("gaussian", shape=(8, 8))
    result = torch.randn(2, 8, 8, dtype=torch.float64)
    shares = []
    for U, V, R in zip(case.U_bnk, case.V_bmk, result, strict=True):
        pairs = [(U[:, i] @ R @ V[:, j]) ** 2 for i in range(8) for j in range(8) if i != j]
        shares.append(math.sqrt(sum(pairs)) / R.norm())
    assert off_directions(case, result) == pytest.approx(float(max(shares)))
    for case in found:  # an odd polynomial keeps them
        X = case.stack.X_bnm
        assert off_directions(case, 2 * X - X @ X.mT @ X) < 1e-12


def test_directions_are_kept_but_for_rounding(found):
    check = msign.keeps_directions(found[:2])
    assert check.verdict == "confirmed" and check.low > 1e-3
    shuffled = [case._replace(U_bnk=case.U_bnk.flip(-1)) for case in found]
    assert msign.keeps_directions(shuffled).verdict == "refuted"


def test_scale_is_normalized_where_no_value_is_too_small(found):
    check = msign.normalizes_scale(found)
    assert check.verdict == "confirmed" and 0.05 < check.low < check.high < 0.3
    steep = small("condition", 1e8)
    assert msign.normalizes_scale([*found, steep]).verdict == "depends"
    assert len(msign.singular_values(found[2], found[2].stack.X_bnm)) == 2 * 6  # of rank 6


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

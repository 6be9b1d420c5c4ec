"""The checks of shards: numbers against scipy's polar factor, and laws."""

import numpy as np
import pytest
import torch
from scipy.linalg import polar

from bench.laboratory import matrices
from bench.laboratory.settings import Source
from bench.laboratory.statements import shards, updates
from optimizers.orthogonalize import msign


@pytest.fixture
def stack():
    return matrices.formed(Source("power_law", 1.0), (12, 16), 3, seed=0)


def test_adamw_may_be_sharded_and_muon_may_not(monkeypatch):
    check = shards.adam_shards(seed=0)
    assert check.verdict == "confirmed" and check.value == 0
    check = shards.muon_needs_whole_matrix(seed=0)
    assert check.verdict == "confirmed" and check.low > 0.1
    monkeypatch.setattr(updates, "muon", updates.adamw)
    assert shards.muon_needs_whole_matrix(seed=0).verdict == "refuted"
    monkeypatch.undo()
    monkeypatch.setattr(updates, "adamw", updates.muon)
    assert shards.adam_shards(seed=0).verdict == "refuted"


def test_blocks_are_those_of_the_polar_decomposition(stack):
    found = shards.blockwise(stack, msign, 4)
    for i, X in enumerate(stack.X_bnm.numpy()):
        B = np.concatenate([polar(part)[0] for part in np.split(X, 4, axis=1)], axis=1)
        Q = polar(X)[0]
        B *= np.linalg.norm(Q) / np.linalg.norm(B)
        assert found.deviation_b[i] == pytest.approx(np.linalg.norm(B - Q) / np.linalg.norm(Q))
        error = np.linalg.norm(B @ B.T - np.eye(12)) / np.sqrt(12)
        assert found.orthogonality_error_b[i] == pytest.approx(error)


def test_blocks_that_share_no_rows_are_exact():
    """msign of a block-diagonal matrix is block by block."""
    X = torch.block_diag(*torch.randn(2, 6, 6, dtype=torch.float64))[None]
    found = shards.blockwise(matrices.decomposed(X), msign, 2)
    assert found.deviation_b.max() < 1e-12 and found.orthogonality_error_b.max() < 1e-12


def test_the_orthogonality_error_is_of_the_shorter_side(stack):
    wide = shards.official(stack.X_bnm)
    found = shards.orthogonality_error(wide, stack.msign_bnm)
    assert shards.orthogonality_error(3 * wide.mT, stack.msign_bnm.mT) == pytest.approx(found)
    assert shards.orthogonality_error(2 * stack.msign_bnm, stack.msign_bnm).max() < 1e-12


def test_the_yardstick_of_blocks_is_the_five_steps_own_error(stack):
    check = shards.blockwise_deviation([stack])
    assert check.n == len(shards.SHARDS) and check.verdict == "refuted"
    diagonal = torch.block_diag(*torch.randn(8, 4, 4, dtype=torch.float64))[None]
    check = shards.blockwise_deviation([matrices.decomposed(diagonal)])
    assert check.verdict == "confirmed" and check.high < 1e-12

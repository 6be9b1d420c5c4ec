"""Products, and msign in every form and dtype, on each device against fp64 on the CPU."""

import pytest
import torch

from optimizers.coefficients import per_step
from optimizers.orthogonalize.iteration import DTYPES, METHODS, Orthogonalizer, orthogonalize
from optimizers.orthogonalize.symmetric import gram_matrix, short_side_product, symmetric_product
from tests.helpers.matrices import random

SHAPES = [(3, 40, 64), (2, 64, 40), (2, 192, 320)]  # on a GPU both sides are four times that
TRIPLES = per_step("keller", 5)
# Of msign: what five steps make of rounding, relative to the whole.
CLOSE = {"fp64": 1e-12, "fp32": 1e-4, "bf16": 0.1, "fp16": 0.02}


def far(found, exact):
    """The relative distance of two stacks."""
    return ((found.cpu().double() - exact).norm() / exact.norm()).item()


def rounded(dtype, *shape, seed=0):
    """Numbers that the dtype has, in fp64."""
    return random(*shape, seed=seed).to(DTYPES[dtype]).double()


@pytest.fixture(params=SHAPES, ids=str)
def shape(request, device):
    b, n, m = request.param
    return (b, 4 * n, 4 * m) if device == "cuda" else (b, n, m)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_fp64(device, dtype, shape):
    X = rounded(dtype, *shape)
    n = min(shape[1:])
    wide = X if shape[1] <= shape[2] else X.mT
    S = rounded(dtype, len(X), n, n, seed=1)
    S = (S + S.mT).to(DTYPES[dtype]).double()
    here, S_here = X.to(device, DTYPES[dtype]), S.to(device, DTYPES[dtype])
    out = torch.empty_like(S_here)
    epsilon = 4 * torch.finfo(DTYPES[dtype]).eps
    assert far(gram_matrix(here, out=out), wide @ wide.mT) < epsilon
    exact = 0.5 * S @ S - 2.0 * S
    found = symmetric_product(S_here, S_here, S_here, alpha=0.5, beta=-2.0, out=out)
    assert far(found, exact) < epsilon
    exact = S @ X + 3.0 * X if shape[1] <= shape[2] else X @ S + 3.0 * X
    found = short_side_product(S_here, here, here, beta=3.0, out=torch.empty_like(here))
    assert far(found, exact) < epsilon


@pytest.mark.parametrize("form", [form for form in METHODS if form != "exact"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_msign_is_that_of_fp64(device, dtype, form, shape):
    X = random(*shape)
    exact = orthogonalize(X, TRIPLES, "newton_schulz")
    found = orthogonalize(X.to(device), TRIPLES, form, DTYPES[dtype])
    assert found.device.type == device and far(found, exact) < CLOSE[dtype]


def test_what_is_asked_for_by_name_runs_there(device):
    """As the optimizers ask; the exact form too, and single rows, zeros and NaN."""
    X = random(3, 24, 32, dtype=torch.float32)
    X[1], X[2, 0, 0] = 0.0, torch.nan
    for asked in (Orthogonalizer(dtype="fp32"), Orthogonalizer(method="exact", dtype="fp32")):
        found = asked(X.to(device)).cpu()
        assert found[0].isfinite().all() and (found[1] == 0).all() and found[2].isnan().all()
        row = random(1, 1, 32, dtype=torch.float32)
        assert torch.allclose(asked(row.to(device)).cpu(), row / row.norm(), atol=1e-6)

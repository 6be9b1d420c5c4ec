"""Symmetric products computed once, and the memory that stacks share."""

import pytest
import torch

from optimizers.coefficients import per_step
from optimizers.orthogonalize import orthogonalize
from optimizers.orthogonalize.symmetric import product, symmetric_product
from optimizers.orthogonalize.workspace import Workspace

pytestmark = pytest.mark.cpu


def gaussian(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("n", [512, 515, 640])  # also rows that the pieces do not divide
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tall", [False, True])
def test_a_symmetric_product_is_the_product_and_its_mirror(n, dtype, tall):
    X = gaussian(2, 300, n, dtype=dtype).mT if tall else gaussian(2, n, 300, dtype=dtype)
    added = X @ X.mT
    got = symmetric_product(X, X.mT, added, alpha=0.3, beta=-0.7)
    want = 0.3 * (X.double() @ X.double().mT) - 0.7 * added.double()
    # A sum of k products errs by sqrt(k) units of the sum of their sizes (Higham and Mary 2019).
    unit, k = torch.finfo(dtype).eps / 2, X.shape[-1]
    sizes = 0.3 * X.double().abs() @ X.double().abs().mT + 0.7 * added.double().abs()
    assert (got - want).norm() <= k**0.5 * unit * sizes.norm()
    far = n // 2  # entries of different pieces are mirrored, not computed again
    assert torch.equal(got[:, far:, : n // 4], got[:, : n // 4, far:].mT)


def test_it_multiplies_five_eighths():
    from torch.utils.flop_counter import FlopCounterMode

    X = gaussian(1, 512, 256)
    with FlopCounterMode(display=False) as whole:
        product(X, X.mT)
    with FlopCounterMode(display=False) as once:
        symmetric_product(X, X.mT)
    assert once.get_total_flops() == 5 / 8 * whole.get_total_flops() > 0


@pytest.mark.parametrize("method", ["newton_schulz", "gram"])
def test_a_shared_workspace_changes_no_bit_whatever_was_in_it(method):
    triples, workspace = per_step("keller", 5), Workspace(torch.device("cpu"))
    for seed, shape in enumerate([(3, 8, 12), (2, 12, 8), (3, 8, 12), (5, 16, 16)]):
        X = gaussian(*shape, seed=seed)
        want = orthogonalize(X, triples, method)
        assert torch.equal(orthogonalize(X.clone(), triples, method, None, workspace), want)


def test_a_workspace_gives_the_same_memory_again():
    workspace = Workspace(torch.device("cpu"))
    large = workspace.empty("X", (4, 6), torch.float32)
    small = workspace.empty("X", (2, 3), torch.float32)
    assert small.shape == (2, 3) and small.data_ptr() == large.data_ptr()
    other = workspace.empty("Y", (2, 3), torch.float32)
    assert other.data_ptr() != large.data_ptr()
    assert workspace.empty("X", (2, 3), torch.float64).data_ptr() != large.data_ptr()

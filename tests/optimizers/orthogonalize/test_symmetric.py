"""Symmetric products computed once, and the memory that stacks share."""

import pytest
import torch

from optimizers.coefficients import per_step
from optimizers.orthogonalize import norms, orthogonalize, symmetric
from optimizers.orthogonalize.symmetric import product, symmetric_product
from optimizers.orthogonalize.workspace import Workspace

pytestmark = pytest.mark.cpu
measured = symmetric.pieces_pay.__wrapped__


def gaussian(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture(autouse=True)
def by_pieces(request, monkeypatch):
    """Whatever this processor would choose."""
    monkeypatch.setattr(symmetric, "pieces_pay", lambda dtype: True)


@pytest.mark.parametrize(
    ("dtype", "n"),
    [(torch.float32, 512), (torch.float64, 515), (torch.float32, 640), (torch.bfloat16, 771)],
)  # also rows that the pieces do not divide
@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(0.3, -0.7, 2.0), (0.3, None, 0.0)])
def test_a_symmetric_product_is_the_product_and_its_mirror(dtype, n, tall, alpha, beta, gamma):
    X = gaussian(2, 300, n, dtype=dtype).mT if tall else gaussian(2, n, 300, dtype=dtype)
    added = None if beta is None else X @ X.mT
    got = symmetric_product(X, X.mT, added, alpha, beta or 1.0, gamma)
    want = alpha * (X.double() @ X.double().mT)
    # A sum of k products errs by sqrt(k) units of the sum of their sizes (Higham and Mary 2019);
    # half precision sums in fp32 and rounds at the end, once more where I is added.
    unit, k = torch.finfo(dtype).eps / 2, X.shape[-1]
    sizes = alpha * X.double().abs() @ X.double().abs().mT
    if added is not None:
        want = want + beta * added.double()
        sizes = sizes + abs(beta) * added.double().abs()
    want.diagonal(dim1=-2, dim2=-1).add_(gamma)
    bound = k**0.5 * min(unit, 2**-24) * sizes.norm()
    if dtype == torch.bfloat16:
        bound += 2 * unit * want.norm()
    assert (got - want).norm() <= bound
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


def test_what_the_processor_is_asked_is_counted_as_nothing():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        threads = torch.get_num_threads()
        answer = measured(torch.float32, n=64, k=64, rounds=1)
    assert counter.get_total_flops() == 0 and isinstance(answer, bool)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1.0, 1e20, 1e37, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_in_fp64_are_those_of_entries_near_1(size, dtype):
    X = (gaussian(3, 6, 4, dtype=torch.float64) * size).to(dtype)
    want = norms.normed_(X.clone())
    got = norms.in_double_(X.clone())
    assert torch.allclose(got.float(), want.float(), rtol=4 * torch.finfo(dtype).eps, atol=1e-6)


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

"""Counts and measured bytes against sums done by hand."""

import pytest
import torch
from torch import nn

from bench.measuring import flops, meter
from models import gpt2
from optimizers.muon import Muon
from optimizers.orthogonalize import Orthogonalizer


def newton_schulz_flops(n: int, m: int, steps: int) -> int:
    """A = X X^T, A A, B X: 2 n n m + 2 n^3 + 2 n n m each step."""
    return steps * (4 * n * n * m + 2 * n**3)


@pytest.mark.parametrize(("stack", "n", "m"), [(1, 16, 16), (3, 8, 32)])
def test_newton_schulz_by_hand(stack, n, m):
    method = Orthogonalizer(method="newton_schulz", dtype="fp32")
    X = torch.randn(stack, n, m)
    counted = flops.count(lambda: method(X))
    assert counted == flops.Count(stack * newton_schulz_flops(n, m, 5), [], torch.float32)


@pytest.mark.parametrize("cls", [Muon, torch.optim.Muon])
def test_a_step_of_muon_by_hand(cls):
    p = nn.Parameter(torch.randn(24, 48))
    p.grad = torch.randn_like(p)
    extra = {"orthogonalizer": {"method": "newton_schulz", "dtype": "bf16"}} if cls is Muon else {}
    counted = flops.count(cls([p], lr=0.0, **extra).step)
    assert counted == flops.Count(newton_schulz_flops(24, 48, 5), [], torch.bfloat16)


def test_adamw_multiplies_no_matrices():
    p = nn.Parameter(torch.randn(8, 8))
    p.grad = torch.randn_like(p)
    assert flops.count(torch.optim.AdamW([p], fused=True).step) == flops.Count(0, [], None)


def test_forms_that_torchs_counter_passes_over():
    a, b, c = torch.randn(3, 2, 4, 4).unbind()
    expected = 2 * 2 * 4**3
    assert flops.count(lambda: a.baddbmm_(b, c)).flops == expected
    assert flops.count(lambda: torch.bmm(b, c, out=a)).flops == expected
    assert flops.count(lambda: a[0].addmm_(b[0], c[0])).flops == expected / 2


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (torch.linalg.svd, "_linalg_svd"),
        (torch.linalg.qr, "linalg_qr"),
        (torch.linalg.eigh, "_linalg_eigh"),
        (torch.linalg.inv, "linalg_inv_ex"),
        (lambda x: torch.mv(x, x[0]), "mv"),
    ],
)
def test_what_has_no_formula_makes_the_count_unknown(work, name):
    x = torch.eye(4)
    counted = flops.count(lambda: work(x @ x))
    assert counted.flops is None and counted.missed == [name]


def test_code_that_compiles_whole_or_not_at_all_is_not_counted_but_runs_afterwards():
    """As in heavyball's optimizers; torch (since 2.13) refuses to compile while anything counts."""
    square = torch.compile(lambda x: x @ x, fullgraph=True, backend="eager")
    x = torch.eye(4)
    assert flops.count(lambda: square(x)) in (
        flops.Count(None, ["torch.compile(fullgraph=True)"], None),
        flops.Count(2 * 4**3, [], torch.float32),
    )
    assert torch.equal(square(x), x)


def test_forward_and_backward_of_a_gpt_by_hand():
    """Six FLOPs a weight and token, and attention: two products forward, five backward."""
    layers, width, vocabulary, batch, length = 2, 32, 64, 3, 16
    model = gpt2.build(vocab_size=vocabulary, layers=layers, heads=4, width=width, positions=length)
    ids = torch.randint(vocabulary, (batch, length))
    counted = flops.count(lambda: model(input_ids=ids, labels=ids).loss.backward())
    tokens = batch * length
    weights = layers * 12 * width**2 + vocabulary * width
    attention = layers * 7 * 2 * tokens * length * width
    assert counted.flops == 6 * tokens * weights + attention


def test_the_peak_is_the_fastest_product(monkeypatch):
    monkeypatch.setattr(flops, "SECONDS", 0.0)
    monkeypatch.setattr(flops, "LARGE_SQUARE", {"cpu": 64})
    rates = {(1, 8, 32, 8): 1.0, (1, 8, 8, 32): 3.0, (4, 8, 32, 8): 2.0}
    monkeypatch.setattr(flops, "rate", lambda *product: rates.get(product[:4], 0.5))
    products = [flops.Product(torch.float32, *sizes) for sizes in rates]
    products.append(flops.Product(torch.bfloat16, 9, 9, 9, 9))
    peak = flops.matmul_peak(products, torch.float32, "cpu")
    assert peak["model_shapes"] == {"flops_per_second": 3.0, "product": "1 of 8x8 @ 8x32"}
    assert peak["large_square"]["product"] == "1 of 64x64 @ 64x64"
    assert flops.matmul_peak([], torch.float32, "cpu")["model_shapes"] is None


def test_a_count_knows_the_products_that_take_most_of_it():
    """As they are: by how many matrices a call multiplies, with what is added, into what."""
    stack, one, out = torch.randn(3, 8, 16), torch.randn(8, 8), torch.empty(3, 8, 8)

    def work():
        torch.bmm(stack, stack.mT, out=out)
        torch.baddbmm(out, out, out)
        torch.addmm(one, one, one)
        for _ in range(9):
            one @ one

    kinds = [(1, 8, 8, 8), (3, 8, 16, 8), (3, 8, 8, 8)]
    assert flops.count(work).largest == tuple(flops.Product(torch.float32, *k) for k in kinds)


def test_a_rate_is_that_of_a_product_timed_by_hand():
    side = 256
    left, right = torch.randn(side, side), torch.randn(side, side)
    began = meter.clock("cpu")
    for _ in range(20):
        torch.mm(left, right)
    by_hand = 20 * 2 * side**3 / (meter.clock("cpu") - began)
    assert flops.rate(1, side, side, side, torch.float32, "cpu") > 0.5 * by_hand


def test_memory_is_that_of_a_known_allocation():
    def work():
        first = torch.empty(1000, 1000)  # 4 MB
        second = torch.empty(500, 1000, dtype=torch.bfloat16)  # 1 MB
        del first
        third = torch.empty(250, 1000)  # 1 MB
        del second, third

    assert meter.held("cpu", work) == meter.Held(peak=5_000_000, left=0)


def test_what_stays_is_told_from_what_is_temporary():
    kept = []
    assert meter.held("cpu", lambda: kept.append(torch.empty(1000))) == (4000, 4000)
    assert meter.held("cpu", kept.clear) == (0, -4000)
    assert meter.held("cpu", lambda: None) == (0, 0)


def test_a_step_of_adamw_needs_no_temporary_memory_and_muon_some():
    p = nn.Parameter(torch.randn(64, 64))
    p.grad = torch.randn_like(p)
    steps = {}
    for optimizer in (torch.optim.AdamW([p], fused=True), Muon([p], lr=0.0)):
        optimizer.step()
        steps[type(optimizer).__name__] = meter.held("cpu", optimizer.step)
    assert steps["AdamW"].peak < p.nbytes <= steps["Muon"].peak
    assert steps["AdamW"].left == steps["Muon"].left == 0


def test_a_kernel_of_another_package_is_said_to_be_missed():
    """As quack's symmetric products, an operator of their own."""
    library = torch.library.Library("quack_like", "DEF")
    library.define("gemm_symmetric_out(Tensor A, Tensor B) -> Tensor")
    library.impl("gemm_symmetric_out", lambda A, B: A @ B, "CompositeExplicitAutograd")
    x = torch.eye(4)
    counted = flops.count(lambda: torch.ops.quack_like.gemm_symmetric_out(x, x))
    assert counted.flops is None and counted.missed == ["gemm_symmetric_out"]

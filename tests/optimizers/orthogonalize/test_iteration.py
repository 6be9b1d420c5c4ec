"""msign by every method, against the polynomial applied to singular values in fp64."""

import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from models import gpt2
from optimizers.coefficients import SETS, per_step
from optimizers.orthogonalize import iteration as module
from optimizers.orthogonalize.iteration import (
    DTYPES,
    METHODS,
    Orthogonalizer,
    gram_is_cheaper,
    msign,
    orthogonalize,
    restarts,
)
from optimizers.orthogonalize.workspace import Workspace
from optimizers.structure import describe
from tests.helpers.commands import ROOT

pytestmark = pytest.mark.cpu

CONF = ROOT / "conf" / "orthogonalizer"
ITERATED = ("newton_schulz", "gram", "auto")
KELLER = per_step("keller", 5)


def gaussian(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rotation(n, seed):
    return torch.linalg.qr(gaussian(n, n, seed=seed))[0]


def steep(n, m, condition=1e4, count=3, seed=0):
    """Matrices with singular values from 1 down to 1/condition, evenly spaced in the logarithm."""
    U = torch.linalg.qr(gaussian(count, n, n, seed=seed))[0]
    V = torch.linalg.qr(gaussian(count, m, n, seed=seed + 1))[0]
    exponents = torch.linspace(0, 1, n, dtype=torch.float64)
    return (U * condition**-exponents) @ V.mT


def reference(X, triples):
    """The polynomial on the singular values of X / |X|, in fp64."""
    X = X.double()
    U, S, Vh = torch.linalg.svd(X / X.norm(dim=(-2, -1), keepdim=True), full_matrices=False)
    for a, b, c in triples:
        S = a * S + b * S**3 + c * S**5
    return (U * S.unsqueeze(-2)) @ Vh


def error(got, want):
    """The largest relative error of a stack, in the Frobenius norm."""
    got, want = got.double(), want.double()
    return ((got - want).norm(dim=(-2, -1)) / want.norm(dim=(-2, -1))).max().item()


def rounding(X, triples, want):
    """The relative error that rounding in X's dtype may make of the iteration.

    A product is rounded when it is stored, to a relative unit u; in half precision its sums are
    in fp32, and m of them err by sqrt(m) units of that (Higham and Mary, "A new approach to
    probabilistic rounding error analysis", 2019). Small singular values grow by a in each step,
    and what was rounded at first grows with them.
    """
    unit = torch.finfo(X.dtype).eps / 2
    unit_of_sums = min(unit, torch.finfo(torch.float32).eps / 2)
    unit += max(X.shape[-2:]) ** 0.5 * unit_of_sums
    growth = math.prod(a for a, _, _ in triples)
    return unit * growth / want.norm(dim=(-2, -1)).min().item()


# against the reference -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16), (33, 17), (2, 2)])
@pytest.mark.parametrize("method", ITERATED)
@pytest.mark.parametrize(("name", "steps"), [("keller", 5), ("keller", 12), ("taylor", 12)])
def test_every_method_is_the_polynomial_of_the_singular_values(shape, method, name, steps):
    X, triples = gaussian(3, *shape), per_step(name, steps)
    assert error(orthogonalize(X, triples, method), reference(X, triples)) < 1e-9


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("make", [gaussian, steep])
@pytest.mark.parametrize("shape", [(24, 24), (24, 96)])
def test_gram_and_plain_form_agree_in_fp64(steps, make, shape):
    X = gaussian(3, *shape) if make is gaussian else steep(*shape)
    triples = per_step("keller", steps)
    plain = orthogonalize(X, triples, "newton_schulz")
    assert error(orthogonalize(X, triples, "gram"), plain) < 1e-9


def low_rank(n, m):
    return gaussian(2, n, n // 3) @ gaussian(2, n // 3, m, seed=1)


SPECTRA = {
    "gaussian": lambda n, m: gaussian(2, n, m),
    "low rank": low_rank,
    "condition 1e2": lambda n, m: steep(n, m, 1e2, count=2),
    "condition 1e4": lambda n, m: steep(n, m, 1e4, count=2),
    "condition 1e6": lambda n, m: steep(n, m, 1e6, count=2),
}


HALF_AND_SINGLE = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = [(48, 48), (48, 192), (192, 48), (128, 512), (256, 640)]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    # Large products in half precision are slow where the processor has none.
    [(d, s) for d in HALF_AND_SINGLE for s in SHAPES if d == torch.float32 or max(s) < 256],
)
@pytest.mark.parametrize("name", ["keller", "polar_express", "you5"])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("method", ["newton_schulz", "gram"])
def test_both_forms_are_as_exact_as_their_dtype_allows(dtype, shape, name, spectrum, method):
    triples, X = per_step(name, 5), SPECTRA[spectrum](*sorted(shape)).to(dtype)
    X = X if shape[0] <= shape[1] else X.mT
    want = reference(X, triples)
    got = orthogonalize(X, triples, method)
    assert got.dtype == dtype
    assert error(got, want) <= rounding(X, triples, want)


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("name", ["keller", "polar_express", "you5"])
def test_the_gram_form_would_not_be_without_its_restarts(dtype, name, monkeypatch):
    """So that the bound can fail: on a steep spectrum it does."""
    X, triples = steep(128, 512).to(dtype), per_step(name, 5)
    want = reference(X, triples)
    monkeypatch.setattr(module, "restarts", lambda X, steps: [steps])
    assert error(orthogonalize(X, triples, "gram"), want) > rounding(X, triples, want)


@pytest.mark.parametrize("shape", [(128, 512), (256, 640)])
@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
def test_auto_takes_the_gram_form_where_it_is_cheaper(shape, dtype):
    X = gaussian(1, *shape).to(dtype)
    assert gram_is_cheaper(X, KELLER)
    auto, form = (orthogonalize(X, KELLER, method) for method in ("auto", "gram"))
    assert torch.equal(auto, form)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_matrices_in_half_precision_keep_the_plain_form(dtype):
    assert not gram_is_cheaper(gaussian(1, 64, 4096).to(dtype), KELLER)


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("method", ITERATED)
@pytest.mark.parametrize("steps", [5, 6, 8, 12])
def test_no_method_blows_up_whatever_the_spectrum(dtype, method, steps):
    """Entries of U V^T are at most 1, and Keller's polynomial ends below 1.3."""
    triples = per_step("keller", steps)
    nearly_flat = gaussian(3, 40, 1) @ gaussian(3, 1, 160) + 1e-3 * gaussian(3, 40, 160)
    for X in (gaussian(3, 40, 160), nearly_flat, *(steep(40, 160, c) for c in (1e2, 1e4, 1e6))):
        got = orthogonalize(X.to(dtype), triples, method)
        assert got.isfinite().all() and got.abs().max() < 1.3


def test_the_exact_method_is_the_polar_factor():
    """X (X^T X)^(-1/2), by another decomposition than the SVD that msign uses."""
    X = gaussian(3, 24, 8)
    values, vectors = torch.linalg.eigh(X.mT @ X)
    polar = X @ (vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT
    exact = Orthogonalizer(method="exact")
    assert error(exact(X), polar) < 1e-10
    assert error(exact(X.mT), polar.mT) < 1e-10
    assert error(exact(X.float()), polar) < 1e-5
    assert exact(X.bfloat16()).dtype == torch.bfloat16


def test_many_taylor_steps_converge_to_the_exact_method():
    X = gaussian(2, 12, 36)
    assert error(orthogonalize(X, per_step("taylor", 25)), msign(X)) < 1e-9


# laws ----------------------------------------------------------------------------------------


shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 24))
seeds = st.integers(0, 2**31)


@given(shapes, seeds, st.sampled_from(METHODS))
@settings(max_examples=60)
def test_transpose_law(shape, seed, method):
    X = gaussian(*shape, seed=seed)
    settled = Orthogonalizer(method=method)
    assert error(settled(X.mT), settled(X).mT) < 1e-9


@given(shapes, seeds, st.sampled_from(ITERATED), st.integers(-40, 40), st.sampled_from([*DTYPES]))
@settings(max_examples=60)
def test_a_power_of_two_changes_no_bit(shape, seed, method, exponent, dtype):
    exponent = exponent // 8 if dtype == "fp16" else exponent  # within the range of fp16
    X = gaussian(*shape, seed=seed).clamp(-4, 4).to(DTYPES[dtype])
    X = torch.where(X.abs() < 0.1, 0.1, X)
    scaled = orthogonalize(X * 2.0**exponent, KELLER, method)
    assert torch.equal(scaled, orthogonalize(X, KELLER, method))


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e-20, 1e-15, 1e15, 1e20, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 8, 24), (2, 1, 24)])
def test_the_size_of_a_gradient_does_not_matter_in_the_whole_range_of_fp32(scale, dtype, shape):
    X = gaussian(*shape).to(dtype)
    got = orthogonalize(X * scale, KELLER)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    assert error(got, orthogonalize(X, KELLER)) < tolerance


@given(st.integers(1, 10), st.integers(1, 20), seeds, st.sampled_from(METHODS))
@settings(max_examples=60)
def test_rotating_either_side_rotates_the_result(n, m, seed, method):
    X, Q, P = gaussian(2, n, m, seed=seed), rotation(n, seed + 1), rotation(m, seed + 2)
    settled = Orthogonalizer(method=method)
    assert error(settled(Q @ X @ P), Q @ settled(X) @ P) < 1e-8


def test_adamw_has_no_such_symmetry():
    """What sets Muon apart: AdamW's step depends on the basis its weights are written in."""
    G, Q = gaussian(6, 8), rotation(6, seed=1)

    def step(gradient):
        weight = torch.nn.Parameter(torch.zeros_like(gradient))
        weight.grad = gradient
        torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0).step()
        return weight.detach()

    assert error(step(Q @ G), Q @ step(G)) > 0.1


# edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_zero_stays_zero_also_beside_others(method, dtype):
    X = gaussian(3, 6, 9).to(dtype)
    X[1] = 0
    got = Orthogonalizer(method=method)(X)
    assert not got[1].any()
    assert got.isfinite().all() and got[0].any() and got[2].any()
    assert not Orthogonalizer(method=method)(torch.zeros(2, 1, 5, dtype=dtype)).any()


@pytest.mark.parametrize("method", METHODS)
def test_rank_one_stays_rank_one(method):
    u, v = gaussian(2, 8, 1), gaussian(2, 1, 12, seed=1)
    unit = u @ v / (u @ v).norm(dim=(-2, -1), keepdim=True)
    value = 1.0
    for a, b, c in KELLER if method != "exact" else []:
        value = a * value + b * value**3 + c * value**5
    assert error(Orthogonalizer(method=method)(u @ v), value * unit) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 1, 7), (3, 7, 1), (3, 1, 1)])
def test_a_single_row_or_column_is_divided_by_its_norm(method, shape):
    X = gaussian(*shape).float()
    unit = X / X.norm(dim=(-2, -1), keepdim=True)
    assert torch.allclose(Orthogonalizer(method=method)(X), unit, rtol=0, atol=2e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(5, 6, 9), (5, 9, 6), (5, 8, 8), (5, 4, 16)])
def test_a_stack_equals_its_matrices_one_by_one(method, shape):
    X = gaussian(*shape)
    settled = Orthogonalizer(method=method)
    alone = torch.cat([settled(X[i : i + 1]) for i in range(len(X))])
    assert error(settled(X), alone) < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(2, 6, 9), (2, 9, 6), (2, 1, 6)])
def test_the_input_is_left_as_it_is(method, shape):
    X = gaussian(*shape)
    before = X.clone()
    Orthogonalizer(method=method)(X)
    assert torch.equal(X, before)


# choices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(1, 14))
@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("rows", [16, 256])
def test_restarts_go_up_to_the_last_step(steps, dtype, rows):
    stops = restarts(torch.empty(1, rows, rows, dtype=dtype), steps)
    assert stops == sorted(set(stops)) and stops[-1] == steps and stops[0] >= 1


@pytest.mark.parametrize("steps", [1, 5, 8])
@pytest.mark.parametrize("name", ["keller", "cubic5"])
@pytest.mark.parametrize(
    ("dtype", "unit"), [(torch.float32, 8), (torch.float32, 256), (torch.bfloat16, 64)]
)
@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (2, 4), (2, 8), (8, 2)])
def test_auto_takes_the_fewer_flops(steps, name, dtype, unit, shape):
    X = gaussian(1, *(unit * k for k in shape)).to(dtype)

    def flops(method):
        with FlopCounterMode(display=False) as counter:
            orthogonalize(X, per_step(name, steps), method)
        return counter.get_total_flops()

    assert flops("auto") == min(flops("newton_schulz"), flops("gram"))


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_settings_file_makes_singular_values_larger_and_alike(path, dtype):
    """In bf16 a set may leave its band by a rounding error a row, and no more."""
    block = OmegaConf.to_container(OmegaConf.load(path))
    settled = Orthogonalizer(**block)
    assert settled.name == path.stem
    X = gaussian(2, 16, 48)
    before = torch.linalg.svdvals(X / X.norm(dim=(-2, -1), keepdim=True))
    after = torch.linalg.svdvals(settled(X, DTYPES[dtype]).double())
    assert (after > before).all() and after.max() / after.min() < before.max() / before.min()
    low, high = settled.singular_values or (0.5, 1.3)
    beyond = X.shape[-2] * torch.finfo(DTYPES[dtype]).eps
    assert after.min() > low - beyond and after.max() < high + beyond


def test_drawn_singular_values_keep_the_directions_and_fill_their_range():
    U, V = (torch.linalg.qr(gaussian(1, 64, 64))[0] for _ in range(2))
    drawn = Orthogonalizer(method="exact", singular_values=(0.5, 1.5))
    torch.manual_seed(0)
    values = U.mT @ drawn(U @ torch.diag(torch.linspace(1, 9, 64).double()) @ V) @ V.mT
    found = values.diagonal(dim1=-2, dim2=-1)
    assert (values - torch.diag_embed(found)).norm() < 1e-4 * found.norm()
    assert 0.5 < found.min() < 0.6 and 1.4 < found.max() < 1.5
    assert not torch.equal(drawn(U), drawn(U))


def test_a_bad_choice_is_named_with_what_there_is():
    for wrong in (
        {"coefficients": "kellr"},
        {"singular_values": (0.5, 1.5)},  # without method="exact"
        {"steps": 0},
        {"method": "svd"},
        {"dtype": "float32"},
    ):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=re.escape(f"orthogonalizer.{name}={value}: ")):
            Orthogonalizer(**wrong)
    with pytest.raises(ValueError, match=", ".join(SETS)):
        Orthogonalizer(coefficients="kellr")


# norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ITERATED)
@pytest.mark.parametrize("shape", [(6, 6), (6, 12), (12, 6)])
def test_the_schatten_norm_is_that_of_the_singular_values(method, shape):
    X = gaussian(3, *shape)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    S = S / S.pow(4).sum(-1, keepdim=True).pow(0.25)
    for a, b, c in KELLER:
        S = a * S + b * S**3 + c * S**5
    got = orthogonalize(X, KELLER, method, norm="schatten4")
    assert error(got, (U * S.unsqueeze(-2)) @ Vh) < 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_schatten_norm_brings_small_singular_values_nearer_to_one(dtype):
    """Of a Gaussian n x n matrix the sums of s^2 and s^4 are about n^2 and 2 n^3."""
    X = gaussian(4, 64, 64).float()
    least = []
    for norm in ("frobenius", "schatten4"):
        whole = Orthogonalizer(norm=norm)(X, DTYPES[dtype]).double()
        assert whole.isfinite().all() and torch.linalg.svdvals(whole).max() < 1.3
        once = Orthogonalizer(norm=norm, steps=1)(X, DTYPES[dtype]).double()
        least.append(torch.linalg.svdvals(once).min(-1).values.mean().item())
    assert least[1] == pytest.approx(least[0] * (64 / 2) ** 0.25, rel=0.1)


def test_a_zero_matrix_gives_zero_under_either_norm():
    X = torch.stack([torch.zeros(4, 6), gaussian(4, 6).float()])
    for norm in ("frobenius", "schatten4"):
        got = Orthogonalizer(norm=norm)(X)
        assert not got[0].any() and got[1].norm() > 1


# captured, and real momenta ------------------------------------------------------------------


@pytest.mark.more
@pytest.mark.parametrize("method", ["newton_schulz", "gram"])
@pytest.mark.parametrize("shape", [(2, 8, 12), (3, 20, 7), (1, 520, 600)])
def test_the_iteration_is_captured_whole_by_torch_compile(method, shape):
    """As on a GPU, where it is compiled; here the captured operations run one by one."""
    torch.compiler.reset()
    captured = torch.compile(orthogonalize, backend="aot_eager", fullgraph=True)
    X = gaussian(*shape).float()
    want = orthogonalize(X, KELLER, method)
    assert error(captured(X.clone(), KELLER, method), want) <= 1e-5
    assert error(captured(X, KELLER, method, None, Workspace(X.device)), want) <= 1e-5


@pytest.fixture(scope="module")
def momenta():
    """Momentum of a GPT-2's hidden matrices after a few steps on text, by shape."""
    model = gpt2.build(vocab_size=64, positions=64, layers=2, heads=4, width=256)
    hidden = [p for p in describe(model) if p.role == "hidden"]
    optimizer = torch.optim.AdamW([p.tensor for p in hidden], lr=1e-3, betas=(0.95, 0.95))
    text = torch.frombuffer(bytearray(Path(__file__).read_bytes()), dtype=torch.uint8).long() % 64
    for step in range(6):
        ids = text[512 * step : 512 * (step + 1)].view(8, 64)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        model.zero_grad()
    found = {}
    for p in hidden:
        M = optimizer.state[p.tensor]["exp_avg"]
        M = M if M.shape[0] <= M.shape[1] else M.mT
        found.setdefault(tuple(M.shape), []).append(M)
    return {shape: torch.stack(matrices) for shape, matrices in found.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["keller", "polar_express", "you5"])
@pytest.mark.parametrize("shape", [(256, 768), (256, 1024)])
@pytest.mark.parametrize("method", ["newton_schulz", "gram"])
def test_both_forms_are_as_exact_on_real_momenta(dtype, name, shape, method, momenta):
    X, triples = momenta[shape].to(dtype), per_step(name, 5)
    for matrix in X:  # one by one: the worst counts
        want = reference(matrix[None], triples)
        bound = rounding(matrix[None], triples, want)
        assert error(orthogonalize(matrix[None], triples, method), want) <= bound

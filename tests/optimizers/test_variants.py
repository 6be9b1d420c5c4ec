"""Muon's variants against their papers' formulas, written out on single matrices."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.muon import Muon
from optimizers.orthogonalize import Orthogonalizer
from optimizers.state import state_bytes
from optimizers.structure import describe
from optimizers.structure.qkv import build_views
from optimizers.views import View, whole
from tests.helpers.matrices import PLAIN64, moved, parameters, random, train

pytestmark = pytest.mark.cpu

VARIANTS = {
    "classical": {"momentum_form": "classical"},
    "bf16": {"momentum_dtype": "bf16"},
    "int8": {"momentum_dtype": "int8"},
    "normuon": {"second_moment": "neuron"},
    "adamuon": {"second_moment": "element", "sign": True},
    "cautious": {"cautious": True},
    "muonh": {"keep_norm": True, "weight_decay": 0.0},
    "muonbp": {"shards": 2, "period": 3},
}
msign64 = Orthogonalizer(**PLAIN64)


def gradient(step, *shape):
    return random(*shape, seed=step)


def run(start, steps=7, views=None, **options):
    """One parameter's way through `steps` gradients."""
    (p,) = parameters(start)
    group = {"params": [p]} | ({} if views is None else {"views": views})
    optimizer = Muon([group], lr=0.1, scale="none", orthogonalizer=PLAIN64, **options)
    for step in range(steps):
        p.grad = gradient(step, *p.shape)
        optimizer.step()
    return p.detach()


def directions(steps, *shape, sign=False):
    """Nesterov's direction at each step, orthogonalized: momentum 0.95, EMA."""
    M = torch.zeros(shape, dtype=torch.float64)
    for step in range(steps):
        G = gradient(step, *shape)
        M = 0.95 * M + 0.05 * G
        D = 0.95 * M + 0.05 * G
        yield msign64((D.sign() if sign else D)[None])[0]


@pytest.mark.parametrize("nesterov", [True, False])
def test_classical_momentum_steps_as_the_ema_does(nesterov):
    """They differ by a factor, which msign removes."""
    start = random(6, 10)
    ema = run(start, nesterov=nesterov)
    classical = run(start, nesterov=nesterov, momentum_form="classical")
    assert moved(ema, classical) <= 1e-12 * moved(start, ema)


def test_classical_momentum_is_the_running_sum():
    (p,) = parameters(random(4, 6))
    optimizer = Muon([p], momentum=0.9, momentum_form="classical")
    for step in range(3):
        p.grad = gradient(step, 4, 6)
        optimizer.step()
    want = 0.81 * gradient(0, 4, 6) + 0.9 * gradient(1, 4, 6) + gradient(2, 4, 6)
    assert torch.allclose(optimizer.state[p]["momentum_buffer"], want)


def test_bf16_momentum_takes_half_the_bytes_and_nearly_the_same_way():
    start = random(16, 32, dtype=torch.float32)
    full, half = parameters(start), parameters(start)
    common = {"lr": 0.02, "orthogonalizer": {"dtype": "fp32"}}
    optimizers = [Muon(full, **common), Muon(half, momentum_dtype="bf16", **common)]
    for optimizer, weights in zip(optimizers, (full, half), strict=True):
        train(optimizer, weights)
    # Rounding the momentum to 8 bits turns a direction by about 2^-8 a step.
    assert 0 < moved(full[0], half[0]) <= 0.02 * moved(start, full[0])
    kept = optimizers[1].state[half[0]]["momentum_buffer"]
    assert kept.dtype == torch.bfloat16 and kept.nbytes == 2 * start.numel()


def test_fp32_momentum_of_a_bf16_weight_is_not_rounded_to_bf16():
    (p,) = parameters(random(4, 6, dtype=torch.bfloat16))
    optimizer = Muon([p], momentum=0.9, momentum_dtype="fp32")
    want = torch.zeros(4, 6)
    for step in range(5):
        p.grad = gradient(step, 4, 6).bfloat16()
        want = torch.lerp(want, p.grad.float(), 1 - 0.9)
        optimizer.step()
    assert torch.equal(optimizer.state[p]["momentum_buffer"], want)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8), (7, 1)])
def test_normuon_divides_rows_by_their_running_size_and_keeps_the_norm(shape):
    W, v = random(*shape), torch.zeros(shape[0], 1, dtype=torch.float64)
    for U in directions(7, *shape):
        v = 0.9 * v + 0.1 * U.square().mean(1, keepdim=True)
        N = U / (v.sqrt() + 1e-8)
        W = (1 - 0.1 * 0.1) * W - 0.1 * N * U.norm() / N.norm()
    got = run(random(*shape), second_moment="neuron", beta2=0.9)
    assert moved(got, W) <= 1e-5 * moved(random(*shape), W)  # v is kept in fp32


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7, 1)])
def test_adamuon_divides_entries_by_their_running_size_and_keeps_the_norm(shape):
    W, v = random(*shape), torch.zeros(shape, dtype=torch.float64)
    for U in directions(7, *shape, sign=True):
        v = 0.95 * v + 0.05 * U.square()
        N = U / (v.sqrt() + 1e-8)
        W = (1 - 0.1 * 0.1) * W - 0.1 * N * U.norm() / N.norm()
    got = run(random(*shape), second_moment="element", sign=True)
    assert moved(got, W) <= 1e-5 * moved(random(*shape), W)


def test_cautious_decay_spares_weights_that_the_update_makes_larger():
    W = random(6, 10)
    for U in directions(7, 6, 10):
        W = W - 0.1 * 0.1 * W * (U * W >= 0) - 0.1 * U
    assert moved(run(random(6, 10), cautious=True), W) <= 1e-12


def test_muonbp_is_whole_at_every_third_step_and_in_pieces_between():
    W, M = random(9, 10), torch.zeros(9, 10, dtype=torch.float64)
    for step in range(7):
        G = gradient(step, 9, 10)
        M = 0.95 * M + 0.05 * G
        D = 0.95 * M + 0.05 * G
        pieces = [D] if step % 3 == 0 else [D[:4], D[4:]]
        W = 0.99 * W - 0.1 * torch.cat([msign64(piece[None])[0] for piece in pieces])
    assert moved(run(random(9, 10), shards=2, period=3), W) <= 1e-12


# over views ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("axis", [0, 1])
@settings(max_examples=15)
@given(data=st.data())
def test_a_variant_on_blocks_steps_as_on_matrices_stored_apart(name, axis, data):
    if name in ("muonbp", "int8"):
        return  # pieces of a joined block are cut along the join, and scales are of a whole tensor
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    shape = (edges[-1], 4) if axis == 0 else (4, edges[-1])
    layout = data.draw(st.sampled_from(["matrix", "transposed"]))
    pairs = [(edges[i], edges[i + 1]) for i in range(len(sizes))]
    view = View(members=[0], layout=layout, axis=axis, blocks=[[[0, *pair]] for pair in pairs])
    start = random(*shape)
    cut = [start[a:b] if axis == 0 else start[:, a:b] for a, b in pairs]

    (joined,) = parameters(start.T if layout == "transposed" else start)
    apart = parameters(*cut)
    common = {"lr": 0.1, "orthogonalizer": PLAIN64, **VARIANTS[name]}
    one, many = Muon([{"params": [joined], "views": [view]}], **common), Muon(apart, **common)
    for step in range(4):
        G = gradient(step, *shape)
        joined.grad = (G.T if layout == "transposed" else G).contiguous()
        for p, (a, b) in zip(apart, pairs, strict=True):
            p.grad = (G[a:b] if axis == 0 else G[:, a:b]).contiguous()
        one.step()
        many.step()
    got = joined.detach().T if layout == "transposed" else joined.detach()
    want = torch.cat([p.detach() for p in apart], axis)
    # An orthogonalized 1 x m row is its own size: v / sqrt(v) amplifies fp32's rounding of v.
    assert moved(got, want) <= (1e-5 if "second_moment" in VARIANTS[name] else 1e-11)


def test_normuon_joins_the_rows_of_several_tensors():
    """Two tensors stacked to one matrix: every row has a second moment in its own tensor."""
    top, bottom = random(3, 6), random(5, 6, seed=1)
    view = View(members=[0, 1], layout="matrix", axis=0, blocks=[[[0, 0, 3], [1, 0, 5]]])
    pair, (both,) = parameters(top, bottom), parameters(torch.cat([top, bottom]))
    common = {"lr": 0.1, "orthogonalizer": PLAIN64, "second_moment": "neuron"}
    joined = Muon([{"params": pair, "views": [view]}], **common)
    single = Muon([both], **common)
    for step in range(4):
        both.grad = gradient(step, 8, 6)
        pair[0].grad, pair[1].grad = both.grad[:3].clone(), both.grad[3:].clone()
        joined.step()
        single.step()
    assert moved(torch.cat([p.detach() for p in pair]), both.detach()) <= 1e-6
    assert [joined.state[p]["neuron_moment"].numel() for p in pair] == [3, 5]


# state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_saved_variant_goes_on_as_if_never_stopped(name):
    start = [random(6, 9, dtype=torch.float32), random(12, dtype=torch.float32, seed=1)]
    weights = parameters(*start)
    optimizer = Muon(weights, **VARIANTS[name])
    train(optimizer, weights, steps=4)
    other = parameters(*weights)
    copied = Muon(other, **VARIANTS[name])
    copied.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, params in ((optimizer, weights), (copied, other)):
        train(each, params, steps=4)
    assert all(torch.equal(a, b) for a, b in zip(weights, other, strict=True))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("output", ["whole", "per_head"])
def test_the_state_of_a_variant_is_as_large_as_predicted(name, output):
    from tests.helpers.zoo import batch, tiny_gpt2

    model = tiny_gpt2()
    members = [p for p in describe(model) if p.role == "hidden"]
    group = {
        "params": [p.tensor for p in members],
        "role": "hidden",
        "views": build_views(members, {"name": "per_head", "output": output}),
    }
    optimizer = Muon([group], **VARIANTS[name])
    before = state_bytes([optimizer])["predicted"]
    model(**batch(model)).loss.backward()
    optimizer.step()
    found = state_bytes([optimizer])
    assert found["total"] == found["predicted"] == before > 0


def test_a_state_saved_before_a_setting_was_there_can_be_loaded():
    weights = parameters(random(4, 6))
    old = Muon(weights).state_dict()
    for name in ("second_moment", "steps", "momentum_dtype"):
        del old["param_groups"][0][name]
    optimizer = Muon(weights)
    optimizer.load_state_dict(old)
    train(optimizer, weights, steps=1)


# captured ------------------------------------------------------------------------------------


@pytest.mark.more
@pytest.mark.parametrize(
    "name", [None, "classical", "bf16", "normuon", "adamuon", "cautious", "muonh"]
)
def test_a_step_is_captured_whole_by_torch_compile_and_not_again_when_the_rate_moves(name):
    torch.compiler.reset()
    start = [random(6, 9, dtype=torch.float32), random(12, dtype=torch.float32, seed=1)]
    options = {"orthogonalizer": {"dtype": "fp32"}, **VARIANTS.get(name, {})}
    captured, eager = parameters(*start), parameters(*start)
    rates = [torch.tensor(0.1), torch.tensor(0.1)]
    one, other = (
        Muon(weights, lr=rate, **options)
        for weights, rate in zip((captured, eager), rates, strict=True)
    )
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    for optimizer, weights in ((one, captured), (other, eager)):  # the first step makes the state
        train(optimizer, weights, steps=1)
    step = torch.compile(one.step, backend=backend, fullgraph=True)
    for factor in (1.0, 0.5, 0.25):
        for rate in rates:
            rate.fill_(0.1 * factor)
        for number, (a, b) in enumerate(zip(captured, eager, strict=True)):
            a.grad = b.grad = random(*a.shape, seed=number, dtype=torch.float32)
        step()
        other.step()
    assert len(graphs) == 1
    for a, b in zip(captured, eager, strict=True):
        assert moved(a, b) <= 1e-5


# mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": float("nan")}, "lr=nan: must be a number, 0 or above"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: must be a number, 0 or above"),
        ({"beta2": 1.0}, r"beta2=1.0: must be in \[0, 1\)"),
        ({"momentum_form": "sum"}, "momentum_form=sum: must be one of ema, classical"),
        ({"momentum_dtype": "fp8"}, "momentum_dtype=fp8: must be one of null, fp32, bf16, int8"),
        ({"second_moment": "row"}, "second_moment=row: must be one of none, neuron, element"),
        ({"shards": 0}, "shards=0: must be a whole number above 0"),
        ({"period": 2.5}, "period=2.5: must be a whole number above 0"),
        ({"shards": 2, "second_moment": "neuron"}, "shards: not together with second_moment"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named_also_in_a_group(wrong, said):
    with pytest.raises(ValueError, match=said):
        Muon(parameters(random(4, 6)), **wrong)
    with pytest.raises(ValueError, match=said):
        Muon([{"params": parameters(random(4, 6)), **wrong}])


def test_views_that_leave_out_a_part_of_a_tensor_are_refused():
    (p,) = parameters(random(4, 6))
    view = whole(0, p, "matrix") | {"blocks": [[[0, 0, 3]]]}
    with pytest.raises(ValueError, match=r"tensor 0 of shape .* 24 elements, its views read 18"):
        Muon([{"params": [p], "views": [view]}])

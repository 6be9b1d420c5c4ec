"""8-bit momentum: its codes against a slow reference, their laws, and Muon's steps with them."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers import quantized, state
from optimizers.muon import Muon
from optimizers.orthogonalize import Orthogonalizer
from optimizers.quantized import BLOCK, count_scales, decode, encode, seed
from optimizers.views import View
from tests.helpers.matrices import PLAIN64, moved, parameters, random, train

pytestmark = pytest.mark.cpu

msign64 = Orthogonalizer(**PLAIN64)
SIZES = st.sampled_from([0, 1, 5, 255, 256, 257, 700])
EXPONENTS = st.integers(-30, 30)


def coded(values, number=0):
    codes = torch.empty(values.shape, dtype=torch.int8)
    scales = torch.empty(count_scales(values.numel()))
    encode(values.clone(), codes, scales, number)
    return codes, scales


def steps_of(values):
    """For each value the distance of its block's codes."""
    blocks = values.abs().flatten().split(BLOCK)
    return torch.cat([b.amax().expand_as(b) / 127 for b in blocks]).view(values.shape)


# codes ---------------------------------------------------------------------------------------


def slow(values, number):
    """One value at a time; dice of whole blocks."""
    flat = values.flatten()
    generator = torch.Generator().manual_seed(number)
    dice = torch.rand(-(-len(flat) // BLOCK), BLOCK, generator=generator).flatten()
    codes, scales = [], []
    for i, value in enumerate(flat):
        if i % BLOCK == 0:
            scales.append(max(abs(v) for v in flat[i : i + BLOCK]) / 127)
        codes.append(max(-127, min(127, int(torch.floor(value / scales[-1] + dice[i])))))
    return torch.tensor(codes, dtype=torch.int8).view(values.shape), torch.stack(scales)


@pytest.mark.parametrize("shape", [(3, 5), (16, 16), (7, 90)])
def test_codes_and_scales_are_those_of_the_slow_reference(shape):
    values = random(*shape, dtype=torch.float32)
    for got, want in zip(coded(values, 7), slow(values, 7), strict=True):
        assert torch.equal(got, want)


@settings(max_examples=40)
@given(size=SIZES, exponent=EXPONENTS, number=st.integers(0, 2**32 - 1))
def test_a_value_is_off_by_less_than_a_step_of_its_block(size, exponent, number):
    values = random(size, seed=number, dtype=torch.float32) * 2.0**exponent
    codes, scales = coded(values, number)
    assert len(scales) == -(-size // 256) and codes.abs().max() <= 127 if size else not len(scales)
    if size:
        off = (decode(codes, scales) - values).abs()
        assert (off <= steps_of(values) * (1 + 1e-4)).all()


@settings(max_examples=15)
@given(exponent=EXPONENTS, number=st.integers(0, 2**31))
def test_rounding_is_unbiased(exponent, number):
    """Over 1,000 seeds the mean is off by at most 0.15 of a step (by Hoeffding, p < 1e-19)."""
    values = random(300, seed=number, dtype=torch.float32) * 2.0**exponent
    found = torch.stack([decode(*coded(values, number + i)) for i in range(1000)])
    assert ((found.mean(0) - values).abs() <= 0.15 * steps_of(values)).all()


def test_the_largest_value_of_a_block_is_kept():
    values = random(4, BLOCK, dtype=torch.float32)
    largest = values.abs().argmax(1, keepdim=True)
    kept = decode(*coded(values))
    torch.testing.assert_close(
        kept.gather(1, largest), values.gather(1, largest), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3e38])
def test_blocks_of_zeros_and_of_extreme_values_stay_finite(value):
    values = torch.full((300,), value)
    kept = decode(*coded(values))
    assert kept.isfinite().all() and (kept - values).abs().max() <= max(value / 120, 2e-38)
    assert value or not kept.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_block_with_a_value_that_is_not_finite_is_seen_and_the_others_are_kept(value):
    values = random(3 * BLOCK, dtype=torch.float32)
    values[BLOCK + 3] = value
    kept = decode(*coded(values))
    assert not kept[BLOCK + 3].isfinite()
    assert kept[:BLOCK].isfinite().all() and kept[2 * BLOCK :].isfinite().all()


def test_a_decoded_tensor_has_the_codes_memory_order():
    values = random(4, 3, 2, 5, dtype=torch.float32).to(memory_format=torch.channels_last)
    codes = torch.empty_like(values, dtype=torch.int8)
    scales = torch.empty(count_scales(values.numel()))
    encode(values.clone(), codes, scales, 0)
    assert decode(codes, scales).stride() == values.stride()
    assert torch.equal(decode(codes, scales), decode(*coded(values.contiguous())))


def test_every_tensor_and_step_rolls_dice_of_its_own():
    assert len({seed(step, member) for step in range(300) for member in range(300)}) == 300**2


# steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("form", ["ema", "classical"])
def test_a_step_decodes_moves_and_encodes(nesterov, form):
    """Against the formula in fp64, from the momentum that the last step left."""
    (p,) = parameters(random(20, 30, dtype=torch.float32))
    rule = {"nesterov": nesterov, "momentum_form": form, "momentum_dtype": "int8"}
    optimizer = Muon([p], lr=0.1, scale="none", orthogonalizer=PLAIN64, **rule)
    M = torch.zeros(20, 30, dtype=torch.float64)
    for step in range(5):
        G, W = random(20, 30, seed=step), p.detach().double()
        p.grad = G.float()
        optimizer.step()
        M = 0.95 * M + (0.05 if form == "ema" else 1) * G
        D = 0.95 * M + (0.05 if form == "ema" else 1) * G if nesterov else M
        assert moved(p.detach(), 0.99 * W - 0.1 * msign64(D[None])[0]) <= 1e-5
        kept = optimizer.state[p]
        assert kept["momentum_buffer"].dtype == torch.int8
        found = decode(kept["momentum_buffer"], kept["momentum_scale"]).double()
        assert ((found - M).abs() <= 1.001 * steps_of(M)).all() and moved(found, M) > 0
        M = found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_trains_nearly_the_same_way_in_a_quarter_of_the_bytes(dtype):
    start = random(16, 32, dtype=dtype)
    full, few = parameters(start), parameters(start)
    common = {"lr": 0.02, "orthogonalizer": {"dtype": "fp32"}}
    optimizers = [Muon(full, **common), Muon(few, momentum_dtype="int8", **common)]
    for optimizer, weights in zip(optimizers, (full, few), strict=True):
        train(optimizer, weights)
    # A code is off by up to 1/127 of its block's largest value, several times the usual one.
    assert 0 < moved(full[0].float(), few[0].float()) <= 0.2 * moved(start.float(), full[0].float())
    for group in optimizers[1].param_groups:
        group["role"] = "hidden"
    found = state.state_bytes(optimizers[1:])
    assert found["total"] == found["predicted"] == 16 * 32 + 2 * 4


def test_gradients_of_zeros_and_one_that_is_not_finite():
    p, q = parameters(random(4, 6, dtype=torch.float32), random(4, 6, seed=1, dtype=torch.float32))
    optimizer = Muon([p, q], lr=0.1, weight_decay=0.0, momentum_dtype="int8")
    p.grad, q.grad = torch.zeros(4, 6), random(4, 6, dtype=torch.float32)
    before = p.detach().clone()
    optimizer.step()
    assert torch.equal(p, before) and not optimizer.state[p]["momentum_buffer"].any()
    p.grad[1, 2] = float("nan")
    optimizer.step()
    assert p.isnan().any() and q.isfinite().all()
    p.grad = torch.zeros(4, 6)
    optimizer.step()  # as with momentum in floating point, it does not go away by itself
    kept = optimizer.state[p]
    assert not decode(kept["momentum_buffer"], kept["momentum_scale"]).isfinite().all()


def test_a_tensor_stepped_ahead_is_rounded_as_in_a_step_alone():
    start = [random(8, 12, seed=i, dtype=torch.float32) for i in range(3)]
    ahead, alone = parameters(*start), parameters(*start)
    optimizers = [Muon(params, momentum_dtype="int8") for params in (ahead, alone)]
    for step in range(3):
        for params in (ahead, alone):
            for i, p in enumerate(params):
                p.grad = random(8, 12, seed=10 * step + i, dtype=torch.float32)
        if step != 1:  # once all of them are stepped by `step`
            optimizers[0].step_ahead(0, frozenset({1, 2}))
        for optimizer in optimizers:
            optimizer.step()
        for p, q in zip(ahead, alone, strict=True):
            one, other = optimizers[0].state[p], optimizers[1].state[q]
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_tensors_are_decoded_only_while_their_stack_is_stepped(monkeypatch):
    """Parts of one tensor that lie in two stacks keep it decoded, and rounded once."""
    shapes = [(8, 6), (4, 6), (5, 7)]
    params = parameters(*(random(*s, dtype=torch.float32) for s in shapes))
    cuts = [[[[0, 0, 2]], [[0, 2, 8]]], [[[1, 0, 4]]], [[[2, 0, 5]]]]
    views = [View(members=[k], layout="matrix", axis=0, blocks=b) for k, b in enumerate(cuts)]
    optimizer = Muon([{"params": params, "views": views}], momentum_dtype="int8")
    opened, most = [], []

    def noted(*args):
        opened.append(args[0].shape)
        most.append(len(opened))
        return decode(*args)

    def closed(values, *rest):
        opened.remove(values.shape)
        encode(values, *rest)

    monkeypatch.setattr(quantized, "decode", noted)
    monkeypatch.setattr(quantized, "encode", closed)
    train(optimizer, params, steps=1)
    assert not opened and len(most) == 3 and max(most) <= 2


# saved ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", ["fp32", "int8"])
@pytest.mark.parametrize("own", ["fp32", "int8"])
def test_a_state_of_another_dtype_is_gone_on_with_as_it_was_saved(saved, own):
    params = parameters(random(6, 9, dtype=torch.float32))
    optimizer = Muon(params, momentum_dtype=saved)
    train(optimizer, params, steps=3)
    copies = parameters(*params)
    other = Muon(copies, momentum_dtype=own)
    train(other, copies, steps=1)
    copies[0].data.copy_(params[0].data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, weights in ((optimizer, params), (other, copies)):
        train(each, weights, steps=3)
    assert torch.equal(params[0], copies[0])


def test_scales_of_another_shape_are_refused_with_the_tensors_name():
    params = parameters(random(20, 30, dtype=torch.float32))
    optimizer = Muon(params, momentum_dtype="int8")
    train(optimizer, params, steps=1)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["momentum_scale"] = torch.ones(2)
    with pytest.raises(ValueError, match=r"momentum_scale of tensor 0 of shape \(20, 30\)"):
        optimizer.load_state_dict(saved)


def test_the_momentum_that_is_read_out_is_decoded():
    model = torch.nn.Linear(6, 4, bias=False)
    optimizer = Muon(model.parameters(), momentum_dtype="int8", nesterov=False)
    model.weight.grad = random(4, 6, dtype=torch.float32)
    optimizer.step()
    found = state.momentum([optimizer], model)["weight"]
    assert (found - 0.05 * model.weight.grad).abs().max() <= 0.05 * 4 / 127

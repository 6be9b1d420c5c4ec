"""Muon used as torch's optimizers are: their generic checks, written anew, over our settings."""

import copy
import io
import pickle
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import state_dict as dcp
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, OneCycleLR

from optimizers.muon import Muon
from optimizers.views import View
from tests.helpers.matrices import parameters, random, train

pytestmark = pytest.mark.cpu

PLAIN = {"method": "newton_schulz", "dtype": "fp32"}
SETTINGS = {
    "plain": {},
    "per_head": {"views": True},
    "original": {"scale": "original", "nesterov": False},
    "classical": {"momentum_form": "classical"},
    "bf16_momentum": {"momentum_dtype": "bf16"},
    "int8_momentum": {"momentum_dtype": "int8"},
    "normuon": {"second_moment": "neuron"},
    "adamuon": {"second_moment": "element", "sign": True, "scale": "none"},
    "no_decay": {"weight_decay": 0.0, "views": True},
    "cautious": {"cautious": True, "weight_decay": 0.5},
    "muonbp": {"shards": 2, "period": 3},
    "exact": {"orthogonalizer": {"method": "exact", "dtype": "fp32"}, "views": True},
}
SHAPES = ((8, 6), (8, 6), (8, 6), (6, 12), (5,), (4, 3, 2, 2), ())
# The first two joined and cut in four heads of 2 rows each; the third by the columns.
HEADS = [[[0, i, i + 2], [1, i, i + 2]] for i in (0, 2, 4, 6)]
VIEWS = [
    View(members=[0, 1], layout="matrix", axis=0, blocks=HEADS),
    View(members=[2], layout="matrix", axis=1, blocks=[[[2, 0, 3]], [[2, 3, 6]]]),
    View(members=[3], layout="transposed", axis=0, blocks=[[[3, 0, 12]]]),
    View(members=[4], layout="vector", axis=0, blocks=[[[4, 0, 5]]]),
    View(members=[5], layout="kernel", axis=0, blocks=[[[5, 0, 4]]]),
    View(members=[6], layout="vector", axis=0, blocks=[[[6, 0, 1]]]),
]


@pytest.fixture(params=SETTINGS)
def options(request):
    return SETTINGS[request.param]


def weights(dtype=torch.float32):
    return parameters(*(random(*s, seed=i, dtype=dtype) for i, s in enumerate(SHAPES)))


def muon(params, options, lr=0.05, **more):
    options = {"orthogonalizer": PLAIN} | options | more
    group = {"params": params}
    if options.pop("views", False):
        group["views"] = VIEWS
    return Muon([group], lr=lr, **options)


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def untouched(call, params):
    """The call changes neither values nor versions of the parameters."""
    before = [(p.detach().clone(), p._version) for p in params]
    call()
    for p, (value, version) in zip(params, before, strict=True):
        assert torch.equal(p, value) and p._version == version


# steps ---------------------------------------------------------------------------------------


def test_a_loss_falls(options):
    params = weights()
    optimizer = muon(params, options)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = sum((p - 1).square().sum() for p in params)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0] and all(a > b for a, b in pairwise(losses[:5]))


def test_a_step_without_gradients_changes_nothing(options):
    params = weights()
    optimizer = muon(params, options)
    untouched(optimizer.step, params)
    assert not optimizer.state and optimizer.param_groups[0]["steps"] == 0
    train(optimizer, params, steps=2)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)
    saved = copy.deepcopy(optimizer.state_dict())
    untouched(optimizer.step, params)
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, saved["state"][number][name])


@pytest.mark.parametrize("left", [0, 3, 5])
def test_a_parameter_without_a_gradient_stays_as_it_is(options, left):
    """From the start, and after it had some; the others move, one joined with it by itself."""
    params = weights()
    optimizer = muon(params, options)
    for steps in range(2):
        for number, p in enumerate(params):
            p.grad = random(*p.shape, seed=number + 9, dtype=p.dtype)
        params[left].grad = None
        others = [p.detach().clone() for p in params]
        buffer = optimizer.state.get(params[left], {}).get("momentum_buffer")
        kept = None if buffer is None else buffer.clone()
        untouched(optimizer.step, params[left : left + 1])
        moved = [bool((p != w).any()) for p, w in zip(params, others, strict=True)]
        assert moved == [number != left for number in range(len(params))]
        assert (params[left] in optimizer.state) == (steps > 0)
        assert kept is None or torch.equal(buffer, kept)
        if steps == 0:
            train(optimizer, params, steps=1)


def test_what_is_joined_with_a_parameter_without_a_gradient_is_a_matrix_without_it():
    a, b = parameters(random(4, 6), random(3, 6, seed=1))
    (alone,) = parameters(b.detach())
    view = View(members=[0, 1], layout="matrix", axis=0, blocks=[[[0, 0, 4], [1, 0, 3]]])
    b.grad = alone.grad = random(3, 6, seed=2)
    Muon([{"params": [a, b], "views": [view]}], scale="original").step()
    Muon([alone], scale="original").step()
    assert torch.equal(alone, b)


def test_frozen_weights_are_left_alone_from_the_start_and_halfway(options):
    """Whatever gradient one still has: zero_grad(set_to_none=False) leaves zeros."""
    params = weights()
    params[1].requires_grad_(False)
    int8 = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    optimizer = muon(params, options)
    optimizer.add_param_group({"params": [int8]})
    for _ in range(2):
        for number, p in enumerate(params):
            p.grad = random(*p.shape, seed=number, dtype=p.dtype) if number != 1 else None
        untouched(optimizer.step, [params[1], int8])
    params[0].requires_grad_(False)
    optimizer.zero_grad(set_to_none=False)
    for number in (2, 3):
        params[number].grad = torch.ones_like(params[number])
    untouched(optimizer.step, [params[0], params[1], int8])
    assert params[1] not in optimizer.state and int8 not in optimizer.state


def test_empty_groups_and_tensors_without_elements_are_no_ops(options):
    (p,) = parameters(random(4, 6, dtype=torch.float32))
    empty = parameters(torch.zeros(0, 4), torch.zeros(3, 0, 2, 2), torch.zeros(0))
    options = {k: v for k, v in options.items() if k != "views"}
    optimizer = Muon([{"params": []}, {"params": [p, *empty]}], **options)
    train(optimizer, [p, *empty], steps=4)
    alone = parameters(random(4, 6, dtype=torch.float32))
    other = Muon(alone, **options)
    for step in range(4):
        alone[0].grad = random(4, 6, seed=1000 * step, dtype=torch.float32)
        alone[0].grad += 0.1 * alone[0].detach()
        other.step()
    assert torch.equal(alone[0], p)


def test_a_closure_is_evaluated_once_with_gradients_and_its_loss_given_back(options):
    params = weights()
    optimizer, calls = muon(params, options), []

    def closure():
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in params)
        loss.backward()
        calls.append(loss.item())
        return loss

    assert optimizer.step(closure).item() == calls[0] and len(calls) == 1
    assert optimizer.step(closure).item() == calls[1] < calls[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_step_and_mix_in_a_group(options, dtype):
    params = weights()
    params[3] = nn.Parameter(params[3].detach().to(dtype))
    optimizer = muon(params, options)
    for _ in range(2):
        for number, p in enumerate(params):
            p.grad = random(*p.shape, seed=number, dtype=p.dtype)
        optimizer.step()
    control = weights()
    other = muon(control, options)
    for _ in range(2):
        for number, p in enumerate(control):
            p.grad = random(*p.shape, seed=number, dtype=p.dtype)
        other.step()
    for p, q in zip(params, control, strict=True):
        assert p.isfinite().all() and torch.allclose(p.float(), q, atol=0.1)
    assert params[3].dtype == dtype


# memory --------------------------------------------------------------------------------------


def strided(t, kind):
    """The same values, stored otherwise."""
    if kind == "permuted":
        turned = list(reversed(range(t.ndim)))
        return t.permute(turned).contiguous().permute(turned)
    if kind == "channels_last":
        return t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t
    wide = torch.zeros(*t.shape[:-1], 2 * t.shape[-1]) if t.ndim else t.clone()
    wide = wide.to(t.dtype)
    part = wide[..., ::2] if t.ndim else wide
    return part.copy_(t)


@pytest.mark.parametrize("kind", ["permuted", "channels_last", "sliced"])
@pytest.mark.parametrize("which", ["weight", "gradient", "momentum"])
def test_any_strides_step_as_contiguous_ones(options, kind, which):
    plain, odd = weights(torch.float64), weights(torch.float64)
    settled = {"orthogonalizer": {**PLAIN, "dtype": "fp64"} | options.get("orthogonalizer", {})}
    if which == "weight":
        odd = [nn.Parameter(strided(p.detach(), kind)) for p in odd]
    strides = [p.stride() for p in odd]
    optimizers = [muon(params, options, **settled) for params in (plain, odd)]
    for step in range(4):
        for number, (p, q) in enumerate(zip(plain, odd, strict=True)):
            p.grad = random(*p.shape, seed=100 * step + number)
            q.grad = strided(p.grad, kind) if which == "gradient" else p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        if which == "momentum":
            for state in optimizers[1].state.values():
                state["momentum_buffer"] = strided(state["momentum_buffer"], kind)
    for p, q in zip(plain, odd, strict=True):
        far = 1e-5 if {"second_moment", "orthogonalizer"} & options.keys() else 1e-9
        assert torch.allclose(p, q, rtol=0, atol=far)
    assert strides == [p.stride() for p in odd]


@pytest.mark.parametrize("second_moment", ["none", "element"])
def test_to_channels_last_and_back_between_steps(second_moment):
    torch.manual_seed(0)
    model, twin = (nn.Conv2d(3, 4, 2, dtype=torch.float64) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    optimizers = [
        Muon(m.parameters(), lr=0.1, second_moment=second_moment, orthogonalizer={"dtype": "fp64"})
        for m in (model, twin)
    ]
    for step, memory in enumerate(
        (torch.contiguous_format, torch.channels_last, torch.channels_last, torch.contiguous_format)
    ):
        model.to(memory_format=memory)
        for m, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            m(random(2, 3, 5, 5, seed=step)).square().sum().backward()
            optimizer.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-6)  # second moments are divided by in fp32


# numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "newton_schulz", "gram"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_one_matrix_stays_in_it(method, bad):
    ill, well = parameters(torch.zeros(3, 4), torch.zeros(3, 4))
    ill.grad, well.grad = torch.full((3, 4), bad), random(3, 4, dtype=torch.float32)
    Muon([ill, well], orthogonalizer={"method": method, "dtype": "fp32"}).step()
    assert ill.isnan().all() and well.isfinite().all() and well.abs().sum() > 0


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32", "auto"])
def test_exact_gives_zero_where_singular_values_are_zero(dtype):
    (p,) = parameters(torch.zeros(16, 24))
    p.grad = random(16, 1, dtype=torch.float32) @ random(1, 24, seed=1, dtype=torch.float32)
    exact = {"method": "exact", "dtype": dtype}
    Muon([p], lr=1.0, weight_decay=0.0, scale="none", orthogonalizer=exact).step()
    values = torch.linalg.svdvals(p.detach())
    assert values[0] == pytest.approx(1.0, abs=1e-2) and values[1:].max() < 1e-2


@pytest.mark.parametrize("nesterov", [True, False])
def test_classical_momentum_in_fp16_stays_finite(nesterov):
    """Its sum would be 100,000."""
    (p,) = parameters(torch.zeros(2, 2, dtype=torch.float16))
    optimizer = Muon([p], momentum_form="classical", nesterov=nesterov)
    for _ in range(60):
        p.grad = (torch.full((2, 2), 5000.0) + 1000 * torch.eye(2)).half()
        optimizer.step()
    assert p.isfinite().all() and optimizer.state[p]["momentum_buffer"].isfinite().all()


# saved and copied ----------------------------------------------------------------------------


def assert_goes_on(optimizer, params, other, copies):
    for each, tensors in ((optimizer, params), (other, copies)):
        train(each, tensors, steps=4)
    assert_equal(params, copies)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_dict_goes_on_to_the_bit(options, dtype):
    """Saved by torch without pickled code; its views are the loading optimizer's."""
    params = weights(dtype)
    optimizer = muon(params, options, lr=0.03)
    train(optimizer, params, steps=4)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    copies = parameters(*(p.detach() for p in params))
    other = muon(copies, options, lr=0.9)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    assert_goes_on(optimizer, params, other, copies)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_to_the_bit(options, way):
    params = weights()
    optimizer = muon(params, options)
    train(optimizer, params, steps=4)
    other = way(optimizer)
    assert_goes_on(optimizer, params, other, other.param_groups[0]["params"])
    assert other.views(other.param_groups[0]) == optimizer.views(optimizer.param_groups[0])


def test_views_are_neither_shown_nor_saved_and_the_callers_dict_keeps_them():
    params = weights()
    group = {"params": params, "views": VIEWS}
    optimizer = Muon([group])
    assert group["views"] is VIEWS and "views" not in optimizer.param_groups[0]
    assert "views" not in optimizer.state_dict()["param_groups"][0]
    assert "views" not in repr(optimizer) and len(repr(optimizer)) < 600
    assert optimizer.views(optimizer.param_groups[0]) == VIEWS


@pytest.mark.parametrize("given", [True, False])
def test_a_state_saved_with_views_loads_and_ones_own_stay(given):
    """As states were saved before: split views in the groups, None for none."""
    params = weights()
    optimizer = muon(params, {"views": True})
    train(optimizer, params, steps=2)
    old = copy.deepcopy(optimizer.state_dict())
    old["param_groups"][0]["views"] = [{**VIEWS[3]}] if given else None
    copies = parameters(*params)
    other = muon(copies, {"views": True})
    other.load_state_dict(old)
    assert "views" not in other.param_groups[0]
    assert_goes_on(optimizer, params, other, copies)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.q(x) * self.k(x))


def net(options):
    model = Net()
    params = [model.q.weight, model.k.weight, model.out.weight]
    rest = [model.q.bias, model.k.bias, model.out.bias]
    views = [VIEWS[0], View(members=[2], layout="matrix", axis=0, blocks=[[[2, 0, 3]]])]
    more = {"views": views} if options.get("views") else {}
    settled = {"orthogonalizer": PLAIN} | {k: v for k, v in options.items() if k != "views"}
    groups = [{"params": params, **more}, {"params": rest, "lr": 0.01}]
    return model, Muon(groups, lr=0.05, **settled)


def pull(model, optimizer, steps):
    for step in range(steps):
        optimizer.zero_grad()
        model(random(4, 6, seed=step, dtype=torch.float32)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("flat", [True, False])
def test_torchs_distributed_checkpoint_saves_loads_and_loads_again(options, flat):
    how = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = net(options)
    pull(model, optimizer, 4)
    saved = copy.deepcopy(dcp.get_optimizer_state_dict(model, optimizer, options=how))
    other_model, other = net(options)
    other_model.load_state_dict(model.state_dict())
    for _ in range(2):
        dcp.set_optimizer_state_dict(other_model, other, copy.deepcopy(saved), options=how)
    assert "differentiable" not in other.param_groups[0]
    pull(model, optimizer, 3)
    pull(other_model, other, 3)
    assert_equal(model.parameters(), other_model.parameters())


def test_a_state_asked_for_before_the_first_step_leaves_it_as_it_was(options):
    """torch fills it by a step at rate 0; MuonBP's first step would be one in pieces."""
    (model, optimizer), (twin, other) = net(options), net(options)
    dcp.get_optimizer_state_dict(model, optimizer)
    assert [g["steps"] for g in optimizer.param_groups] == [0, 0]
    pull(model, optimizer, 3)
    pull(twin, other, 3)
    assert_equal(model.parameters(), twin.parameters())


def test_torchs_muon_goes_on_as_ours():
    """Its momentum and settings are taken, whatever ours were; not how it iterates."""
    params = parameters(random(16, 24, dtype=torch.float32), random(24, 8, dtype=torch.float32))
    theirs = torch.optim.Muon(params, lr=0.02, weight_decay=0.2, momentum=0.9)
    train(theirs, params, steps=4)
    copies = parameters(*params)
    bf16 = {"method": "newton_schulz", "dtype": "bf16"}
    ours = Muon(copies, momentum_form="classical", orthogonalizer=bf16)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    (group,) = ours.param_groups
    assert (group["scale"], group["momentum"], group["weight_decay"]) == ("original", 0.9, 0.2)
    assert group.keys() == Muon(weights()).param_groups[0].keys()
    before = [p.detach().clone() for p in copies]
    train(theirs, params, steps=4)
    train(ours, copies, steps=4)
    for start, a, b in zip(before, params, copies, strict=True):
        assert (a - b).norm() < 1e-3 * (a - start).norm()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_another_optimizers_state_is_refused_in_one_line(kind):
    params = weights()
    other = kind(params, lr=0.1)
    train(other, params, steps=1)
    optimizer = muon(params, {})
    train(optimizer, params, steps=1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="optimizer state: it is another optimizer's") as caught:
        optimizer.load_state_dict(other.state_dict())
    assert "\n" not in str(caught.value)
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]


@pytest.mark.parametrize("second", ["none", "neuron", "element"])
def test_a_state_of_another_shape_is_refused_with_the_tensors_name(second):
    small = parameters(random(4, 6, dtype=torch.float32))
    large = [("layer.weight", p) for p in parameters(random(6, 6, dtype=torch.float32))]
    saved, optimizer = Muon(small, second_moment=second), Muon(large, second_moment=second)
    train(saved, small, steps=1)
    with pytest.raises(ValueError, match=r"momentum_buffer of layer.weight of shape \(6, 6\)"):
        optimizer.load_state_dict(saved.state_dict())
    assert not optimizer.state


def test_settings_that_make_no_sense_are_refused_on_loading():
    params = weights()
    saved = muon(params, {}).state_dict()
    saved["param_groups"][0]["nesterov"] = "yes"
    optimizer = muon(params, {})
    with pytest.raises(ValueError, match="nesterov=yes: must be true or false"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["nesterov"] is True


def test_all_hooks_are_called_and_what_they_give_back_is_used():
    params = weights()
    optimizer, heard = muon(params, {"views": True}), []
    optimizer.register_step_pre_hook(lambda *_: heard.append("before"))
    optimizer.register_step_post_hook(lambda *_: heard.append("after"))
    optimizer.register_state_dict_pre_hook(lambda _: heard.append("saving"))
    optimizer.register_state_dict_post_hook(lambda _, saved: saved | {"mine": 1})
    train(optimizer, params, steps=1)
    saved = optimizer.state_dict()
    assert heard == ["before", "after", "saving"] and saved["mine"] == 1

    def zeroed(_, loaded):
        loaded = copy.deepcopy(loaded)
        for state in loaded["state"].values():
            state["momentum_buffer"].zero_()
        return loaded

    def noted(other):
        heard.append(max(s["momentum_buffer"].abs().max().item() for s in other.state.values()))
        other.state[params[0]]["momentum_buffer"] += 1  # stays

    optimizer.register_load_state_dict_pre_hook(zeroed)
    optimizer.register_load_state_dict_post_hook(noted)
    optimizer.load_state_dict(saved)
    assert heard[-1] == 0 and optimizer.state[params[0]]["momentum_buffer"].min() == 1


def test_whatever_else_is_in_a_state_survives_loading():
    params = weights(torch.bfloat16)
    optimizer = muon(params, {"momentum_dtype": "fp32"})
    train(optimizer, params, steps=1)
    kept = {"step": torch.tensor(3.0), "count": 4, "ratio": 0.5, "parts": [torch.ones(2), "x"]}
    optimizer.state[params[0]].update(kept)
    saved = copy.deepcopy(optimizer.state_dict()) | {"more": 1}
    other = muon(params, {})
    other.load_state_dict(saved)
    found = other.state[params[0]]
    assert found["momentum_buffer"].dtype == torch.float32
    assert (found["count"], found["ratio"], found["parts"][1]) == (4, 0.5, "x")
    assert found["step"] == 3 and found["parts"][0].dtype == torch.float32


# groups --------------------------------------------------------------------------------------


def test_groups_have_rates_of_their_own(options):
    params, quiet = weights(), parameters(random(4, 6, dtype=torch.float32))
    optimizer = muon(params, options)
    optimizer.add_param_group({"params": quiet, "lr": 0.0})
    before = quiet[0].detach().clone()
    train(optimizer, [*params, *quiet], steps=2)
    assert torch.equal(quiet[0], before)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.0]


def one_step(p, optimizer):
    before = p.detach().clone()
    p.grad = torch.eye(*p.shape)
    optimizer.step()
    return (before - p.detach())[0, 0].item()


def test_a_group_that_takes_the_place_of_a_removed_one_keeps_its_own_scale():
    a, b = parameters(torch.zeros(4, 4), torch.zeros(4, 4))
    optimizer = Muon(
        [{"params": [a], "scale": "none"}, {"params": [b]}],
        lr=1.0, weight_decay=0.0, orthogonalizer={"method": "exact", "dtype": "fp32"},
    )  # fmt: skip
    a.grad = torch.eye(4)
    assert one_step(b, optimizer) == pytest.approx(0.4)
    del optimizer.param_groups[0]
    assert one_step(b, optimizer) == pytest.approx(0.4)
    optimizer.param_groups[0]["scale"] = "none"
    assert one_step(b, optimizer) == pytest.approx(1.0)
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "params": [a], "lr": 2.0}
    assert one_step(a, optimizer) == pytest.approx(2.0)
    optimizer.param_groups[0]["scale"] = "rms"
    with pytest.raises(ValueError, match="scale=rms"):
        one_step(a, optimizer)


def test_shards_that_are_changed_count_from_the_next_step():
    start = random(8, 6, dtype=torch.float32)
    one, two = parameters(start, start)
    changed, fresh = muon([one], {}), muon([two], {"shards": 2, "period": 5})
    fresh.param_groups[0]["steps"] = 1  # in pieces
    one.grad = two.grad = random(8, 6, seed=1, dtype=torch.float32)
    changed.param_groups[0] |= {"shards": 2, "period": 5, "steps": 1}
    changed.step()
    fresh.step()
    assert torch.equal(one, two) and changed.param_groups[0]["steps"] == 2


@pytest.mark.parametrize("given", [False, True])
def test_a_parameter_appended_after_a_step_is_stepped(given):
    """With views too: they speak of those that were there."""
    params = weights()
    optimizer = muon(params, {"views": given})
    train(optimizer, params, steps=1)
    (late,) = parameters(random(4, 6, dtype=torch.float32))
    (alone,) = parameters(late.detach())
    optimizer.param_groups[0]["params"].append(late)
    late.grad = alone.grad = random(4, 6, seed=1, dtype=torch.float32)
    optimizer.step()
    muon([alone], {}).step()
    assert torch.allclose(late, alone, atol=1e-6)


def test_a_tensor_replaced_by_a_longer_one_moves_in_every_row():
    (short,), (long,) = parameters(torch.zeros(4, 3)), parameters(torch.zeros(6, 3))
    optimizer = Muon([short], lr=0.1)
    train(optimizer, [short], steps=1)
    state = optimizer.state.pop(short)
    optimizer.state[long] = state
    optimizer.param_groups[0]["params"][0] = long
    long.grad = random(6, 3, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"momentum_buffer of tensor 0 of shape \(6, 3\)"):
        optimizer.step()
    state["momentum_buffer"] = torch.zeros(6, 3)
    optimizer.step()
    assert (long != 0).any(1).all()


def test_views_that_no_longer_fit_their_tensors_are_refused_and_new_ones_taken():
    params = weights()
    optimizer = muon(params, {"views": True})
    train(optimizer, params, steps=1)
    group = optimizer.param_groups[0]
    (group["params"][3],) = parameters(random(6, 14, dtype=torch.float32))
    train_one = group["params"][3]
    train_one.grad = random(6, 14, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"tensor 3 of shape \(6, 14\) has 84 elements.*read 72"):
        optimizer.step()
    del group["params"][3:]
    with pytest.raises(ValueError, match="views: they are of 7 tensors, but the group has 3 now"):
        optimizer.step()
    group["views"] = VIEWS[:2]
    optimizer.step()
    assert optimizer.views(group) == VIEWS[:2] and "views" not in group


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": "1e-3"}, "lr='1e-3': must be one number"),
        ({"lr": torch.ones(2)}, r"lr=a tensor of shape \(2,\): must be one number"),
        ({"weight_decay": None}, "weight_decay=None: must be one number"),
        ({"momentum": "0.9"}, "momentum='0.9': must be one number"),
        ({"nesterov": "yes"}, "nesterov=yes: must be true or false"),
        ({"cautious": 5}, "cautious=5: must be true or false"),
        ({"shards": True}, "shards=True: must be a whole number"),
        ({"orthogonalizer": {"step": 3}}, "orthogonalizer.step=3: no such setting; accepted: name"),
        ({"orthogonalizer": "keller"}, "orthogonalizer='keller': must be a mapping"),
        ({"orthogonalizer": {"method": "exact", "singular_values": 3}}, "singular_values=3: must"),
        ({"views": [VIEWS[2], VIEWS[2]]}, "tensor 0 .* is read by no|block reads tensor 3"),
    ],
)
def test_a_mistake_is_refused_by_name_and_no_group_left_behind(wrong, said):
    (p,) = parameters(random(4, 6, dtype=torch.float32))
    optimizer = Muon(parameters(random(2, 2)))
    with pytest.raises(ValueError, match=said) as caught:
        optimizer.add_param_group({"params": [p], **wrong})
    assert "\n" not in str(caught.value) and len(optimizer.param_groups) == 1
    if "views" not in wrong:
        with pytest.raises(ValueError, match=said):
            Muon([p], **wrong)
    optimizer.add_param_group({"params": [p]})


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ({"blocks": [[[0, 0, 3]], [[0, 2, 3]]]}, "tensor 0 of shape .* is read twice, in its row"),
        ({"blocks": [[[0, 0, 8]], [[0, 12, 8]]]}, "read"),
        ({"blocks": [[[0, 2, 6]]]}, "end at 6 of 4"),
        ({"blocks": [[[0, 0, 4]]], "layout": "kernel"}, r"\(4, 6\) cannot be read as kernel"),
        ({"blocks": [[[0, 0, 4]]], "layout": "rows"}, "layout=rows with axis=0"),
        ({"blocks": [[[1, 0, 4]]]}, r"reads tensor 1, but the members are \[0\]"),
    ],
)
def test_views_that_make_no_sense_are_refused(view, said):
    (p,) = parameters(random(4, 6))
    whole = View(members=[0], layout="matrix", axis=0, blocks=[])
    with pytest.raises(ValueError, match=f"optimizer views: .*{said}"):
        Muon([{"params": [p], "views": [{**whole, **view}]}])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 2, dtype=torch.complex64),
        torch.eye(2).to_sparse(),
        torch.zeros(2, 2, dtype=torch.float8_e4m3fn),
    ],
)
def test_a_kind_of_tensor_without_a_polar_factor_here_is_refused(tensor):
    with pytest.raises(ValueError, match=r"the.odd.one of shape .* is (dense|sparse) .*Muon takes"):
        Muon([("the.odd.one", nn.Parameter(tensor))])


def test_a_sparse_gradient_is_refused_when_it_comes_first_or_later():
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = Muon(table.parameters())
    for _ in range(2):
        table.weight.grad = None
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(ValueError, match=r"gradient of tensor 0 of shape \(5, 3\) is sparse"):
            optimizer.step()
        table.weight.grad = torch.ones(5, 3)
        optimizer.step()


def test_an_integer_with_a_gradient_is_refused():
    p = torch.ones(2, 2, dtype=torch.int32)
    optimizer = Muon([p])
    optimizer.step()
    p.grad = torch.ones(2, 2, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"tensor 0 .* is dense int32"):
        optimizer.step()


def test_settings_after_the_rate_are_named():
    """torch's Muon has the decay where ours would have the momentum."""
    with pytest.raises(TypeError, match="positional"):
        Muon(weights(), 0.02, 0.1, 0.95)
    assert Muon(weights(), 0.02).defaults["lr"] == 0.02


# schedulers and rates ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: ExponentialLR(o, 0.5),
        lambda o: LinearLR(o, 0.1, total_iters=4),
        lambda o: OneCycleLR(o, 0.1, total_steps=9),  # turns the momentum too
    ],
)
def test_a_scheduler_turns_the_rate_and_resumes_to_the_bit(options, schedule):
    params = weights()
    optimizer = muon(params, options)
    scheduler = schedule(optimizer)
    for _ in range(3):
        train(optimizer, params, steps=1)
        scheduler.step()
    copies = parameters(*params)
    other = muon(copies, options)
    resumed = schedule(other)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.load_state_dict(scheduler.state_dict())
    for each, tensors, turn in ((optimizer, params, scheduler), (other, copies, resumed)):
        for _ in range(3):
            train(each, tensors, steps=1)
            turn.step()
    assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"] != 0.05
    assert_equal(params, copies)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_rate_may_be_a_tensor_of_one_element(options, shape):
    params, others = weights(), weights()
    train(muon(params, options, lr=torch.full(shape, 0.05)), params, steps=2)
    train(muon(others, options), others, steps=2)
    for p, q in zip(params, others, strict=True):
        assert torch.allclose(p, q, atol=1e-5)


def test_what_a_reader_of_defaults_finds():
    optimizer = Muon(weights(), lr=0.1, momentum=0.9)
    assert optimizer.defaults.items() >= {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}.items()
    assert set(optimizer.param_groups[0]) == set(optimizer.defaults) | {"params"}

"""Muon: its formula, torch's own Muon, views against separately stored matrices, its state."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import gpt2, vit
from optimizers import stacks
from optimizers.muon import Muon
from optimizers.orthogonalize import msign
from optimizers.stacks import SCALES, update_scale
from optimizers.structure import describe
from optimizers.structure.qkv import build_views
from optimizers.views import View, block_shapes, gather, scatter, whole
from tests.helpers.matrices import PLAIN64, moved, parameters, random, train

pytestmark = pytest.mark.cpu

EXACT64 = {"method": "exact", "dtype": "fp64"}
PLAIN32 = {"method": "newton_schulz", "dtype": "fp32"}
QKV = {
    "fused": {"name": "fused"},
    "split": {"name": "split"},
    "per_head": {"name": "per_head"},
    "head_groups": {"name": "head_groups", "heads_per_group": 2},
}
WIDTH, HEADS = 32, 4
# How many matrices each mode makes of the (3 x 32)-row projection of q, k and v.
COUNTS = {"fused": 1, "split": 3, "per_head": 12, "head_groups": 6}


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(8, 8), (6, 12), (12, 6)])
def test_three_steps_are_the_formula(nesterov, shape):
    W, M = random(*shape), torch.zeros(*shape, dtype=torch.float64)
    (p,) = parameters(W)
    optimizer = Muon(
        [p], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.5, orthogonalizer=EXACT64
    )
    for step in range(3):
        G = random(*shape, seed=step + 1)
        p.grad = G.clone()
        optimizer.step()
        M = 0.9 * M + 0.1 * G
        U, _, Vh = torch.linalg.svd(0.9 * M + 0.1 * G if nesterov else M, full_matrices=False)
        W = (1 - 0.1 * 0.5) * W - 0.1 * 0.2 * max(shape) ** 0.5 * (U @ Vh)
        assert torch.allclose(p.detach(), W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("rule", ["match_rms_adamw", "original"])
@pytest.mark.parametrize(
    "shapes", [[(32, 32)], [(24, 64)], [(64, 24)], [(16, 16), (16, 48), (48, 16), (16, 16)]]
)
def test_twenty_steps_equal_torchs_muon(nesterov, rule, shapes):
    """In bf16, as torch iterates: no farther than rounding takes torch from its formula."""
    start = [random(*shape, seed=i, dtype=torch.float32) for i, shape in enumerate(shapes)]
    common = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "nesterov": nesterov}
    theirs, ours = parameters(*start), parameters(*start)
    train(torch.optim.Muon(theirs, adjust_lr_fn=rule, **common), theirs)
    settled = {"method": "newton_schulz", "dtype": "bf16"}
    train(Muon(ours, scale=rule, orthogonalizer=settled, **common), ours)
    exact = parameters(*start)
    train(Muon(exact, scale=rule, orthogonalizer=PLAIN64, **common), exact)
    for w, a, b, c in zip(start, theirs, ours, exact, strict=True):
        assert moved(a, b) <= moved(a, c) < 0.01 * moved(w, a)


@pytest.mark.parametrize("shape", [(64, 64), (48, 192), (192, 48), (256, 256)])
def test_twenty_steps_in_bf16_are_no_farther_from_exact_ones_than_torchs(shape):
    start = [random(*shape, seed=i) for i in range(3)]
    exact, theirs, ours = (
        parameters(*(w.to(dtype) for w in start))
        for dtype in (torch.float64, torch.float32, torch.float32)
    )
    common = {"lr": 0.02, "weight_decay": 0.1}
    train(Muon(exact, orthogonalizer=PLAIN64, **common), exact)
    train(torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **common), theirs)
    settled = {"method": "newton_schulz", "dtype": "bf16"}
    train(Muon(ours, orthogonalizer=settled, **common), ours)
    far = [sum(moved(w, x.double()) for w, x in zip(exact, y, strict=True)) for y in (ours, theirs)]
    assert 0 < far[0] <= 1.1 * far[1]


def test_the_defaults_are_torchs():
    theirs, ours = (cls(parameters(random(2, 2))).defaults for cls in (torch.optim.Muon, Muon))
    for name in ("lr", "momentum", "nesterov", "weight_decay"):
        assert ours[name] == theirs[name]


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (48, 96), (16, 128)])
@pytest.mark.parametrize("settled", [{}, PLAIN32, {"dtype": "bf16"}])
def test_an_update_is_nearly_orthogonal(shape, settled):
    (p,) = parameters(torch.zeros(shape))
    p.grad = random(*shape, dtype=torch.float32)
    Muon([p], lr=1.0, weight_decay=0.0, scale="spectral", orthogonalizer=settled).step()
    values = torch.linalg.svdvals(p.detach()) / (shape[0] / shape[1]) ** 0.5
    assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize("shape", [(7,), (1,), ()])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp64", 1e-14), ("fp32", 3e-7), ("bf16", 1e-2)])
def test_a_vector_moves_by_its_direction(shape, dtype, tolerance):
    """scale v / |v|, within the roundings of the iteration's dtype."""
    v = random(*shape)
    (p,) = parameters(torch.zeros_like(v))
    p.grad = v.clone()
    Muon([p], lr=1.0, weight_decay=0.0, orthogonalizer={"dtype": dtype}).step()
    want = -0.2 * max(v.numel(), 1) ** 0.5 * v / v.norm()
    assert torch.allclose(p.detach(), want, rtol=tolerance, atol=0)


def test_weight_decay_is_decoupled_and_not_scaled():
    """Two weights with the same gradients differ by (1 - lr decay) on the weight alone."""
    W = random(6, 24)
    bare, decayed = parameters(W, W)
    for p, decay in ((bare, 0.0), (decayed, 0.3)):
        p.grad = random(6, 24, seed=1)
        Muon([p], lr=0.1, weight_decay=decay, orthogonalizer=PLAIN64).step()
    difference = bare.detach() - decayed.detach()
    assert torch.allclose(difference, 0.1 * 0.3 * W, rtol=0, atol=1e-14)


def test_a_rate_of_zero_moves_only_the_momentum():
    weights = parameters(random(4, 6), random(5))
    before = [p.detach().clone() for p in weights]
    optimizer = Muon(weights, lr=0.0, momentum=0.9, weight_decay=0.5)
    for p in weights:
        p.grad = torch.ones_like(p)
    optimizer.step()
    for p, w in zip(weights, before, strict=True):
        assert torch.equal(p, w)
        assert torch.allclose(optimizer.state[p]["momentum_buffer"], 0.1 * torch.ones_like(p))


@pytest.mark.parametrize("size", [1e-6, 1e-9, 1e-24])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_small_gradients_move_a_weight_as_far_as_large_ones(size, dtype):
    steps = []
    for factor in (1.0, size):
        (p,) = parameters(torch.zeros(8, 32))
        p.grad = factor * random(8, 32, dtype=torch.float32)
        Muon([p], lr=1.0, weight_decay=0.0, scale="none", orthogonalizer={"dtype": dtype}).step()
        steps.append(p.detach())
    assert moved(*steps) < (1e-5 if dtype == "fp32" else 0.1) * steps[0].norm()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_weight_whose_gradient_has_ended_stays_finite(dtype):
    """Its momentum decays by 5 % a step, below the squares of fp32 after 800 steps."""
    (p,) = parameters(torch.zeros(4, 8))
    optimizer = Muon([p], lr=1e-3, orthogonalizer={"dtype": dtype})
    p.grad = 1e-3 * random(4, 8, dtype=torch.float32)
    optimizer.step()
    p.grad = torch.zeros_like(p)
    for _ in range(1500):
        optimizer.step()
    assert p.isfinite().all() and p.abs().max() < 1.0


# scale rules ---------------------------------------------------------------------------------


RATIOS = {
    "original": lambda out, inputs: max(1.0, out / inputs) ** 0.5,
    "match_rms_adamw": lambda out, inputs: 0.2 * max(out, inputs) ** 0.5,
    "spectral": lambda out, inputs: (out / inputs) ** 0.5,
    "none": lambda out, inputs: 1.0,
}


@pytest.mark.parametrize("rule", SCALES)
@pytest.mark.parametrize(
    ("layout", "shape", "out", "inputs"),
    [
        ("matrix", (12, 5), 12, 5),
        ("matrix", (5, 12), 5, 12),
        ("transposed", (12, 5), 5, 12),
        ("transposed", (5, 12), 12, 5),
        ("table", (30, 4), 4, 30),
        ("table", (1, 30, 4), 4, 30),
        ("kernel", (6, 2, 3, 3), 6, 18),
        ("vector", (9,), 9, 1),
    ],
)
def test_a_scale_rule_reads_fan_out_and_fan_in_of_the_layout(rule, layout, shape, out, inputs):
    (p,) = parameters(torch.zeros(shape, dtype=torch.float64))
    p.grad = random(*shape)
    group = {"params": [p], "views": [whole(0, p, layout)]}
    Muon([group], lr=1.0, weight_decay=0.0, scale=rule, orthogonalizer=EXACT64).step()
    rank = min(out, inputs)  # msign has that many singular values of 1
    assert p.norm().item() == pytest.approx(RATIOS[rule](out, inputs) * rank**0.5, rel=1e-9)


@pytest.mark.parametrize("rule", SCALES)
def test_a_scale_rule_reads_the_block_not_the_tensor(rule):
    """Two blocks of (4, 16) and (12, 16) in one transposed tensor (16, 16)."""
    (p,) = parameters(torch.zeros(16, 16, dtype=torch.float64))
    p.grad = random(16, 16)
    blocks = [[[0, 0, 4]], [[0, 4, 16]]]
    view = View(members=[0], layout="transposed", axis=0, blocks=blocks)
    group = {"params": [p], "views": [view]}
    Muon([group], lr=1.0, weight_decay=0.0, scale=rule, orthogonalizer=EXACT64).step()
    for columns, out in ((p[:, :4], 4), (p[:, 4:], 12)):
        want = RATIOS[rule](out, 16) * out**0.5
        assert columns.norm().item() == pytest.approx(want, rel=1e-9)


def test_match_rms_gives_the_update_the_size_of_adamws():
    for shape in ((16, 64), (64, 16), (32, 32)):
        (p,) = parameters(torch.zeros(shape, dtype=torch.float64))
        p.grad = random(*shape)
        Muon([p], lr=1.0, weight_decay=0.0, orthogonalizer=EXACT64).step()
        assert p.square().mean().sqrt().item() == pytest.approx(0.2, rel=1e-9)


# views against separately stored matrices ----------------------------------------------------


def stepped(params, views, orthogonalizer, steps=1):
    group = {"params": params} | ({} if views is None else {"views": views})
    optimizer = Muon([group], lr=0.1, weight_decay=0.1, orthogonalizer=orthogonalizer)
    for step in range(steps):
        yield step
        optimizer.step()


def assert_as_stored_apart(tensors, views, orthogonalizer, tolerance, steps=20):
    """The same 20 steps on tensors read through views, and on each matrix as its own parameter."""
    params = parameters(*tensors)
    blocks = [parameters(*gather(view, tensors)) for view in views]
    alone = [p for group in blocks for p in group]
    in_step = zip(
        stepped(params, views, orthogonalizer, steps),
        stepped(alone, None, orthogonalizer, steps),
        strict=True,
    )
    for step, _ in in_step:
        for number, p in enumerate(params):
            noise = random(*p.shape, seed=100 * step + number, dtype=p.dtype)
            p.grad = noise + 0.1 * p.detach()
        for view, group in zip(views, blocks, strict=True):
            for p, gradient in zip(group, gather(view, [p.grad for p in params]), strict=True):
                p.grad = gradient
    want = [t.clone() for t in tensors]
    for view, group in zip(views, blocks, strict=True):
        scatter(view, [p.detach() for p in group], want)
    for p, t, w in zip(params, tensors, want, strict=True):
        assert moved(p.detach(), w) <= tolerance * moved(t, w)
        assert moved(t, w) > 0


def attention(model, role):
    """The q, k, v parameters of the model's first attention, of one role, and their tensors."""
    found = [p for p in describe(model) if p.attention and p.role == role]
    return [p for p in found if p.attention == found[0].attention]


def tiny_gpt2():
    torch.manual_seed(0)
    return gpt2.build(vocab_size=40, layers=1, heads=HEADS, width=WIDTH, positions=8)


def tiny_vit():
    torch.manual_seed(0)
    sizes = {"image_size": 8, "channels": 1, "classes": 5, "patch_size": 4}
    return vit.build(**sizes, layers=1, heads=HEADS, width=WIDTH)


@pytest.mark.parametrize("mode", QKV)
@pytest.mark.parametrize("role", ["hidden", "vector"])
@pytest.mark.parametrize("build", [tiny_gpt2, tiny_vit])
@pytest.mark.parametrize(
    ("dtype", "settled", "tolerance"),
    [(torch.float64, PLAIN64, 1e-12), (torch.float32, PLAIN32, 1e-4)],
)
def test_a_view_steps_as_matrices_stored_apart(build, mode, role, dtype, settled, tolerance):
    members = attention(build(), role)
    tensors = [p.tensor.detach().to(dtype) for p in members]
    views = build_views(members, QKV[mode])
    shapes = [shape for view in views for shape in block_shapes(view, tensors)]
    columns = WIDTH if role == "hidden" else 1
    assert shapes == [(3 * WIDTH // COUNTS[mode], columns)] * COUNTS[mode]
    assert_as_stored_apart(tensors, views, settled, tolerance)


@pytest.mark.parametrize("role", ["hidden", "vector"])
def test_vits_three_projections_fused_are_one_stacked_tensor(role):
    """Written out, without gather and scatter: rows of q, then k, then v."""
    members = attention(tiny_vit(), role)
    tensors = [p.tensor.detach().double() for p in members]
    apart, (stacked,) = parameters(*tensors), parameters(torch.cat(tensors))
    optimizers = [
        Muon([{"params": apart, "views": build_views(members, QKV["fused"])}], lr=0.1),
        Muon([stacked], lr=0.1),
    ]
    for optimizer in optimizers:
        optimizer.param_groups[0]["orthogonalizer"] = PLAIN64
    for step in range(20):
        stacked.grad = random(*stacked.shape, seed=step) + 0.1 * stacked.detach()
        for p, gradient in zip(apart, stacked.grad.split(WIDTH), strict=True):
            p.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(torch.cat(apart), stacked, rtol=0, atol=1e-12)


def test_gpt2s_heads_are_columns_of_the_stored_tensor():
    """Written out for the fused (in, 3 out) weight: a head is 8 columns next to each other."""
    (member,) = attention(tiny_gpt2(), "hidden")
    (p,) = parameters(torch.zeros(WIDTH, 3 * WIDTH, dtype=torch.float64))
    p.grad = random(WIDTH, 3 * WIDTH)
    group = {"params": [p], "views": build_views([member], QKV["per_head"])}
    Muon([group], lr=1.0, weight_decay=0.0, scale="none", orthogonalizer=EXACT64).step()
    for start in range(0, 3 * WIDTH, WIDTH // HEADS):
        columns = slice(start, start + WIDTH // HEADS)
        want = -msign(p.grad[:, columns].T.unsqueeze(0))[0].T
        assert torch.allclose(p[:, columns], want, rtol=0, atol=1e-12)


def test_the_output_projection_is_cut_by_columns_of_fan_in_where_asked():
    members = [p for p in describe(tiny_gpt2()) if p.output_heads]
    tensors = [p.tensor.detach().double() for p in members]
    assert len(members) == 1
    views = build_views(members, {"name": "split", "output": "per_head"})
    assert block_shapes(views[0], tensors) == [(WIDTH, WIDTH // HEADS)] * HEADS
    assert_as_stored_apart(tensors, views, PLAIN64, 1e-12)
    whole_views = build_views(members, {"name": "split", "output": "whole"})
    assert block_shapes(whole_views[0], tensors) == [(WIDTH, WIDTH)]


@given(st.data())
@settings(max_examples=40)
def test_any_cut_in_stacks_of_any_size_steps_as_matrices_stored_apart(data):
    """Blocks of uneven, shuffled pieces of two tensors; stacks so small that runs are cut."""
    columns = data.draw(st.integers(1, 5))
    pieces = []
    tensors = []
    for member in range(2):
        size, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
        tensors.append(random(size * count, columns, seed=member + 7))
        pieces += [[member, i * size, (i + 1) * size] for i in range(count)]
    if data.draw(st.booleans()):
        pieces = data.draw(st.permutations(pieces))
    most = data.draw(st.integers(1, 3))
    blocks = [list(pieces[i : i + most]) for i in range(0, len(pieces), most)]
    view = View(members=[0, 1], layout="matrix", axis=0, blocks=blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacks, "ELEMENTS", {"cpu": data.draw(st.integers(1, 60))})
        assert_as_stored_apart(tensors, [view], PLAIN64, 1e-10, steps=3)


def test_a_stack_is_no_larger_than_it_may_be(monkeypatch):
    monkeypatch.setattr(stacks, "ELEMENTS", {"cpu": 100})
    weights = parameters(*(random(4, 8, seed=i) for i in range(11)))
    optimizer = Muon(weights)
    planned = stacks.plan(weights, optimizer.views(optimizer.param_groups[0]), "none")
    counts = [stack.shape[0] for stack in planned]
    assert sum(counts) == 11 and max(counts) * 32 <= 100
    assert max(counts) - min(counts) <= 1  # as equal as can be


# gradients, state, closures ------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("iteration", ["fp32", "bf16"])
def test_the_gradient_is_only_read(nesterov, dtype, iteration):
    weights = parameters(*(random(*s, dtype=dtype) for s in ((6, 9), (9, 6), (5,), (4, 2, 3, 3))))
    optimizer = Muon(weights, nesterov=nesterov, orthogonalizer={"dtype": iteration})
    for step in range(3):
        for p in weights:
            p.grad = random(*p.shape, seed=step, dtype=dtype)
        before = [(p.grad, p.grad.clone(), p.grad._version) for p in weights]
        optimizer.step()
        for p, (grad, values, version) in zip(weights, before, strict=True):
            assert p.grad is grad and torch.equal(grad, values) and grad._version == version


def test_bf16_momentum_is_not_disturbed_by_the_iteration():
    """Without Nesterov the iteration must not work in the buffer's own memory."""
    (p,) = parameters(random(6, 9, dtype=torch.bfloat16))
    optimizer = Muon([p], nesterov=False, momentum=0.5, orthogonalizer={"dtype": "bf16"})
    p.grad = torch.ones_like(p)
    optimizer.step()
    buffer = optimizer.state[p]["momentum_buffer"]
    assert buffer.dtype == torch.bfloat16
    assert torch.equal(buffer, 0.5 * torch.ones_like(p))


def test_a_group_without_any_gradient_is_left_alone():
    idle, busy = parameters(random(4, 6), random(4, 6))
    optimizer = Muon([{"params": [idle]}, {"params": [busy]}])
    before = idle.detach().clone()
    busy.grad = torch.ones_like(busy)
    optimizer.step()
    assert torch.equal(idle, before) and idle not in optimizer.state
    assert not torch.equal(busy, before)


def test_groups_keep_their_own_settings():
    first, second = parameters(random(4, 6), random(4, 6))
    quiet = {"params": [second], "lr": 0.0}
    optimizer = Muon([{"params": [first]}, quiet], lr=0.1)
    for p in (first, second):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(second, random(4, 6)) and not torch.equal(first, random(4, 6))


def mixed(seed=0):
    shapes = ((6, 6), (4, 10), (10, 4), (7,), (3, 2, 2, 2))
    return parameters(*(random(*s, seed=seed + i) for i, s in enumerate(shapes)))


def views_of_mixed(weights):
    blocks = [[[1, 0, 1], [1, 3, 4]], [[1, 1, 3]]]
    layouts = {0: "matrix", 2: "transposed", 3: "vector", 4: "kernel"}
    views = [whole(i, weights[i], layout) for i, layout in layouts.items()]
    return [*views, View(members=[1], layout="matrix", axis=0, blocks=blocks)]


def with_views(weights, **options):
    return Muon([{"params": weights, "views": views_of_mixed(weights)}], lr=0.05, **options)


def test_a_saved_state_goes_on_as_if_never_stopped(tmp_path):
    """Saved without pickled code; the views are the new optimizer's own."""
    straight = mixed()
    optimizer = with_views(straight, orthogonalizer=PLAIN64)
    train(optimizer, straight, steps=4)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = parameters(*(p.detach() for p in straight))
    other = with_views(resumed, momentum=0.1, scale="none")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(optimizer, straight, steps=4)
    train(other, resumed, steps=4)
    for a, b in zip(straight, resumed, strict=True):
        assert torch.equal(a, b)


def test_loading_into_an_optimizer_that_has_stepped_drops_its_old_plan():
    source, target = mixed(), mixed()
    optimizer, other = with_views(source), with_views(target, scale="none")
    train(other, target, steps=1)
    train(optimizer, source, steps=1)
    for p, q in zip(source, target, strict=True):
        q.data.copy_(p.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch shares the tensors
    train(optimizer, source, steps=2)
    train(other, target, steps=2)
    for a, b in zip(source, target, strict=True):
        assert torch.equal(a, b)


def test_a_deep_copy_steps_like_its_original():
    weights = mixed()
    optimizer = with_views(weights)
    train(optimizer, weights, steps=2)
    other = copy.deepcopy(optimizer)
    copies = other.param_groups[0]["params"]
    train(optimizer, weights, steps=2)
    train(other, copies, steps=2)
    for a, b in zip(weights, copies, strict=True):
        assert a is not b and torch.equal(a, b)


def test_param_groups_are_plain_data():
    optimizer = with_views(mixed())
    for group in optimizer.state_dict()["param_groups"]:
        assert json.loads(json.dumps(group)) == group


def test_one_buffer_a_parameter_in_its_dtype():
    weights = parameters(random(4, 6, dtype=torch.float32), random(5, dtype=torch.bfloat16))
    optimizer = Muon([{"params": [p]} for p in weights])
    train(optimizer, weights, steps=1)
    for p in weights:
        ((name, buffer),) = optimizer.state[p].items()
        assert (name, buffer.shape, buffer.dtype) == ("momentum_buffer", p.shape, p.dtype)


def test_the_same_steps_give_the_same_bits():
    runs = [mixed(), mixed()]
    for weights in runs:
        train(with_views(weights), weights, steps=5)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned():
    (p,) = parameters(random(4, 6))
    optimizer = Muon([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert first.item() == pytest.approx(random(4, 6).square().sum().item())
    assert optimizer.step(closure) < first


def test_named_parameters_and_a_scheduler_work_as_with_any_torch_optimizer():
    model = torch.nn.Linear(6, 4)
    optimizer = Muon(model.named_parameters(), lr=0.4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    model(torch.ones(1, 6)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert not torch.equal(before, model.weight)


def test_bad_settings_are_named():
    weights = parameters(random(2, 2))
    for wrong in ({"lr": -0.1}, {"momentum": 1.0}, {"momentum": -0.1}, {"scale": "rms"}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name}={value}"):
            Muon(weights, **wrong)
    with pytest.raises(ValueError, match="match_rms_adamw"):
        update_scale("rms", 2, 2)
    with pytest.raises(ValueError, match=r"orthogonalizer.method=svd"):
        Muon(weights, orthogonalizer={"method": "svd"})

"""Several optimizers as one: whatever takes AdamW takes them, and nothing goes otherwise."""

import copy
import pickle

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import lr_scheduler

from optimizers import hybrid
from optimizers.joint import Joint
from optimizers.routing import route
from tests.helpers.zoo import batch, package, settings, tiny_gpt2, train, weights


def new():
    model = tiny_gpt2()
    return model, hybrid(model)


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(weights(model), weights(other), strict=True))


def goes_on_alike(model, optimizer, other, again):
    assert train(other, again, 3) == train(model, optimizer, 3)
    assert same(model, other)


def test_together_they_step_as_they_do_apart(build):
    apart, joined = build(), build()
    losses = train(apart, route(apart, settings("hybrid")), 6)
    assert train(joined, hybrid(joined), 6) == losses
    assert same(apart, joined)


PARTS = ["muon", "normuon", "muonbp", "adamuon", "torch_muon", "optimuon", "pytorch_optimizer_muon"]
PARTS += ["muonh", "muon_8bit"]
PARTS += ["pytorch_optimizer_soap", "pytorch_optimizer_shampoo"]  # heavyball's compile for a minute
PARTS += ["schedule_free_adamw", "splus", "prodigy"]  # psgd_kron draws random numbers


@pytest.mark.parametrize("name", PARTS)
def test_any_optimizers_can_be_its_parts(name):
    if package(name):
        pytest.importorskip(package(name))

    def joint():
        model = tiny_gpt2()
        parts = route(model, settings(name)).optimizers
        return model, Joint({part.param_groups[0]["role"]: part for part in parts})

    apart = tiny_gpt2()
    losses = train(apart, route(apart, settings(name)), 4)
    model, optimizer = joint()
    assert train(model, optimizer, 4) == losses and same(apart, model)
    other, again = joint()
    other.load_state_dict(model.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    goes_on_alike(model, optimizer, other, again)


def test_parts_that_evaluate_other_weights_are_switched_with_it():
    pytest.importorskip("pytorch_optimizer")
    model = tiny_gpt2()
    free = {"_target_": "pytorch_optimizer.ScheduleFreeAdamW", "lr": 2e-3}
    optimizer = hybrid(model, roles={"default": free})
    train(model, optimizer, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.eval()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    hidden = {name for name in before if ".h." in name and name.endswith("weight")}
    assert moved and not any("c_fc.weight" in name for name in moved)  # Muon has one set
    assert moved - hidden
    optimizer.train()
    assert all(torch.allclose(p, before[n], atol=1e-6) for n, p in model.named_parameters())


# a run that stops and goes on ------------------------------------------------------------------


def test_a_saved_state_goes_on_bit_for_bit(build, tmp_path):
    model = build()
    optimizer = hybrid(model)
    train(model, optimizer, 3)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, tmp_path / "saved.pt")
    loaded = torch.load(tmp_path / "saved.pt", weights_only=True)
    other = build()
    again = hybrid(other)
    other.load_state_dict(loaded["model"])
    again.load_state_dict(loaded["optimizer"])
    goes_on_alike(model, optimizer, other, again)


def test_its_state_dict_is_numbered_as_that_of_one_optimizer():
    model, optimizer = new()
    train(model, optimizer, 1)
    saved = optimizer.state_dict()
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    assert numbers == list(range(len(list(model.parameters())))) == sorted(saved["state"])
    for number, p in enumerate(p for g in optimizer.param_groups for p in g["params"]):
        assert saved["state"][number].keys() == optimizer.state[p].keys()


@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_with_its_model_goes_on_bit_for_bit(way):
    model, optimizer = new()
    train(model, optimizer, 3)
    other, again = way((model, optimizer))
    assert again.table == optimizer.table
    goes_on_alike(model, optimizer, other, again)


@pytest.mark.parametrize("flat", [False, True])
def test_distributed_checkpoints_take_it(flat):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = new()
    train(model, optimizer, 3)
    optimizer.zero_grad()
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    other, again = new()
    other.load_state_dict(model.state_dict())
    for _ in range(2):
        set_optimizer_state_dict(other, again, copy.deepcopy(saved), options=options)
    goes_on_alike(model, optimizer, other, again)


SCHEDULERS = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [1, 4], 0.5),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=4),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 8),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 1e-4, 1e-3, 2, cycle_momentum=False),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 1e-2, 10, cycle_momentum=False),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.2, total_iters=2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
}


def scheduled(model, optimizer, scheduler, steps):
    losses = []
    for _ in range(steps):
        losses += train(model, optimizer, 1)
        plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
        scheduler.step(*([1.0] if plateau else []))
    return losses, [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_holds_in_every_part_and_goes_on(name):
    model, optimizer = new()
    scheduler = SCHEDULERS[name](optimizer)
    _, rates = scheduled(model, optimizer, scheduler, 3)
    assert len(set(rates)) == 1 and rates[0] != 2e-3
    other, again = new()
    anew = SCHEDULERS[name](again)
    other.load_state_dict(model.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    anew.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    assert scheduled(other, again, anew, 3) == scheduled(model, optimizer, scheduler, 3)
    assert same(model, other)


def test_a_rate_set_by_hand_holds_at_the_next_step():
    model, optimizer = new()
    before = weights(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(model, optimizer, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_a_gradient_scaler_skips_what_is_not_finite_and_changes_nothing_else():
    (plain, one), (model, two) = new(), new()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    train(plain, one, 3)
    for turn in range(4):
        two.zero_grad()
        scaler.scale(model(**batch(model)).loss).backward()
        if turn == 1:
            next(model.parameters()).grad[0, 0] = torch.inf
        scaler.step(two)
        scaler.update()
    assert scaler.get_scale() == 2.0**9
    assert same(plain, model)


# what is done to its groups and state ----------------------------------------------------------


def test_a_group_removed_is_stepped_no_more():
    model, optimizer = new()
    train(model, optimizer, 1)
    (vectors,) = [g for g in optimizer.param_groups if g["role"] == "vector"]
    optimizer.param_groups.remove(vectors)
    before = [p.detach().clone() for p in vectors["params"]]
    train(model, optimizer, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, vectors["params"], strict=True))
    assert all(g["role"] != "vector" for g in copy.deepcopy(optimizer.state_dict())["param_groups"])


def test_a_group_added_later_goes_to_the_part_of_its_role():
    model = tiny_gpt2()
    late = model.transformer.h[1].mlp.c_fc
    late.requires_grad_(False)
    optimizer = hybrid(model)
    train(model, optimizer, 1)
    late.requires_grad_(True)
    optimizer.add_param_group({"params": [late.weight], "role": "hidden", "lr": 1e-3})
    optimizer.add_param_group({"params": [late.bias], "role": "vector"})
    before = late.weight.detach().clone()
    train(model, optimizer, 1)
    assert not torch.equal(before, late.weight)
    assert optimizer.state[late.weight].keys() == {"momentum_buffer"}
    assert optimizer.state[late.bias].keys() == {"step", "exp_avg", "exp_avg_sq"}
    saved = copy.deepcopy(optimizer.state_dict())
    assert [g["params"][-1] for g in saved["param_groups"][-2:]] == [26, 27]
    optimizer.load_state_dict(saved)
    assert optimizer.state[late.weight].keys() == {"momentum_buffer"}


@pytest.mark.parametrize("role", [None, "head"])
def test_a_group_without_a_part_is_refused_by_name(role):
    _, optimizer = new()
    group = {"params": [torch.nn.Parameter(torch.ones(2, 2))]}
    with pytest.raises(ValueError, match=f"role={role}: must be one of hidden, embedding"):
        optimizer.add_param_group(group | ({"role": role} if role else {}))
    optimizer.param_groups.append(group | {"role": role})
    with pytest.raises(ValueError, match=rf"param_groups\[4\]: role={role}: must be one of"):
        optimizer.step()


def test_a_parameter_of_another_part_is_refused_and_nothing_is_left_of_it():
    model, optimizer = new()
    groups = list(optimizer.param_groups)
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": groups[-1]["params"][:1], "role": "hidden"})
    assert optimizer.param_groups == groups
    assert optimizer.parts["hidden"].param_groups == groups[:1]
    with pytest.raises(ValueError, match="more than one parameter group"):
        Joint({name: torch.optim.SGD(model.parameters()) for name in "ab"})


def test_a_state_cleared_or_replaced_begins_anew():
    model, optimizer = new()
    train(model, optimizer, 3)
    fresh = copy.deepcopy(model)
    begun = hybrid(fresh)
    optimizer.state.clear()
    goes_on_alike(model, optimizer, fresh, begun)


def test_a_closure_is_called_once_with_gradients():
    model, optimizer = new()
    calls = []

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = model(**batch(model)).loss
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    other, again = new()
    assert [loss.item()] == train(other, again, 1) and calls == [True]
    assert same(model, other)


def test_hooks_do_what_torchs_do():
    model, optimizer = new()
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    train(model, optimizer, 1)
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("saving"))
    optimizer.register_state_dict_post_hook(lambda _, saved: {"wrapped": saved})
    optimizer.register_load_state_dict_pre_hook(lambda _, saved: saved["wrapped"])
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    saved = copy.deepcopy(optimizer.state_dict())
    assert saved.keys() == {"wrapped"}
    optimizer.load_state_dict(saved)
    assert saved.keys() == {"wrapped"}
    assert seen == ["before", "after", "saving", "loaded"]


# what it refuses, and says ---------------------------------------------------------------------


def test_a_state_of_another_optimizer_is_refused_and_changes_nothing():
    model, optimizer = new()
    train(model, optimizer, 2)
    other, again = copy.deepcopy((model, optimizer))
    foreign = torch.optim.AdamW(tiny_gpt2().parameters()).state_dict()
    with pytest.raises(ValueError, match=r"are None \(28\); this .* hidden \(8\), embedding"):
        optimizer.load_state_dict(foreign)
    goes_on_alike(model, optimizer, other, again)


def test_a_part_that_refuses_its_share_leaves_all_as_it_was(monkeypatch):
    model, optimizer = new()
    train(model, optimizer, 2)
    other, again = copy.deepcopy((model, optimizer))
    saved = copy.deepcopy(optimizer.state_dict())
    for state in saved["state"].values():
        for value in state.values():
            value.zero_()

    load = optimizer.parts["vector"].load_state_dict

    def picky(share):
        if not share["state"][0]["exp_avg"].any():
            raise ValueError("refused")
        load(share)

    monkeypatch.setattr(optimizer.parts["vector"], "load_state_dict", picky)
    with pytest.raises(ValueError, match="refused"):
        optimizer.load_state_dict(saved)
    goes_on_alike(model, optimizer, other, again)


def test_it_is_shown_in_a_line_a_group():
    _, optimizer = new()
    shown = repr(optimizer)
    assert "hidden: Muon, 8 tensors, lr 0.002, weight_decay 0.1" in shown
    assert len(shown.splitlines()) == len(optimizer.param_groups) + 2

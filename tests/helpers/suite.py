"""What every optimizer of conf/optimizer/ is put to, whoever wrote it.

Imported by a test module, each runs with its fixtures `optimizer` (a name) and `build` (a model).
"""

import copy
import json

import pytest
import torch

from optimizers.routing import is_muon, locate, route
from tests.helpers.zoo import KEYS, batch, settings, tiny_gpt2, train, weights

FASTER = {"psgd_kron": 3.0}  # its rate is a third of the others': twenty steps would show little


def test_the_partition_is_exact(optimizer, build):
    model = build()
    routing = route(model, settings(optimizer))
    taken = [p for o in routing.optimizers for g in o.param_groups for p in g["params"]]
    assert len(taken) == len({id(p) for p in taken})
    assert {id(p) for p in taken} == {id(p) for p in model.parameters()}
    by_role = [p for members in routing.roles.values() for p in members]
    assert {id(p) for p in by_role} == {id(p) for p in taken} and len(by_role) == len(taken)


def test_the_table_tells_what_the_optimizers_hold(optimizer, build):
    model = build()
    block = settings(optimizer)
    routing = route(model, block)
    held = {
        id(p): (type(o).__name__, g["role"], g["lr"], g.get("weight_decay", 0.0))
        for o in routing.optimizers
        for g in o.param_groups
        for p in g["params"]
    }
    assert json.loads(json.dumps(routing.table)) == routing.table
    assert [row["name"] for row in routing.table] == [n for n, _ in model.named_parameters()]
    for row in routing.table:
        p = model.get_parameter(row["name"])
        assert row.keys() == KEYS
        assert (row["optimizer"], row["role"], row["lr"], row["weight_decay"]) == held[id(p)]
        assert row["shape"] == list(p.shape) and row["reason"]
        rule = block["roles"].get(row["role"], block["roles"].get("default"))
        assert row["optimizer"] == rule["_target_"].rpartition(".")[2]
        if is_muon(locate(rule["_target_"])):
            shared = [model.get_parameter(n).numel() for n in row["joined_with"]]
            numbers = sum(count * r * c for count, r, c in row["matrices"])
            assert numbers == p.numel() + sum(shared)
        else:
            assert row["matrices"] is None and row["joined_with"] == []


def test_the_rates_are_the_rules_times_the_scales(optimizer, build):
    plain, block = settings(optimizer), settings(optimizer)
    block |= {"lr_scale": 0.5, "aux_lr_scale": 0.1, "embedding_lr_scale": 8.0}
    routing = route(build(), block)
    for row in routing.table:
        rule = plain["roles"].get(row["role"], plain["roles"].get("default"))
        factor = 0.5 if is_muon(locate(rule["_target_"])) else 0.05
        factor *= 8 if row["role"] in ("embedding", "head") else 1
        assert row["lr"] == pytest.approx(rule["lr"] * factor, rel=1e-12)
        assert routing.rates()[row["role"]] == row["lr"]


def test_a_schedule_multiplies_the_base_rates(optimizer, build):
    routing = route(build(), settings(optimizer))
    base = routing.rates()
    routing.scale_rates(0.5)
    routing.scale_rates(0.25)  # of the base rate, not of the last one
    assert routing.rates() == pytest.approx({role: 0.25 * lr for role, lr in base.items()})
    routing.scale_rates(1.0)
    assert routing.rates() == base


def test_twenty_steps_learn_and_stay_finite(optimizer, build):
    model = build()
    routing = route(model, settings(optimizer))
    routing.scale_rates(FASTER.get(optimizer, 1.0))
    losses = train(model, routing, 20)
    assert losses[-1] < losses[0] - 0.2
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_same_start_gives_the_same_bits(optimizer, build):
    ends = []
    for _ in range(2):
        model = build()
        losses = train(model, route(model, settings(optimizer)), 4)
        ends.append((losses, weights(model)))
    (first, a), (second, b) = ends
    assert first == second
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_saved_state_goes_on_as_if_never_stopped(optimizer, build, tmp_path):
    model = build()
    routing = route(model, settings(optimizer))
    train(model, routing, 3)
    state = [o.state_dict() for o in routing.optimizers]
    torch.save({"model": model.state_dict(), "optimizers": state}, tmp_path / "state.pt")
    straight = train(model, routing, 3)
    other = build()
    again = route(other, settings(optimizer))
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(loaded["model"])
    for o, saved in zip(again.optimizers, loaded["optimizers"], strict=True):
        o.load_state_dict(saved)
    assert again.rates() == routing.rates()
    assert train(other, again, 3) == straight
    assert all(torch.equal(x, y) for x, y in zip(weights(model), weights(other), strict=True))


def test_zero_grad_forgets_the_gradients(optimizer, build):
    model = build()
    routing = route(model, settings(optimizer))
    model(**batch(model)).loss.backward()
    routing.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_the_block_is_not_changed_so_that_it_can_be_used_again(optimizer):
    block = settings(optimizer)
    before = copy.deepcopy(block)
    route(tiny_gpt2(), block)
    assert block == before

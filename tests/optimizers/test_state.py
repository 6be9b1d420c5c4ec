"""State bytes: measured equals predicted, for every optimizer's YAML on both models."""

import pytest
import torch
from torch import nn

from optimizers.muon import Muon
from optimizers.routing import is_muon, locate, route
from optimizers.state import predicted_bytes, state_bytes, tensors_in
from tests.helpers.zoo import MODELS, OPTIMIZERS, batch, settings, tiny_gpt2


def stepped(model, block):
    routing = route(model, block)
    model(**batch(model)).loss.backward()
    routing.step()
    return routing


def counted(optimizers):
    """All tensors of the states, counted without regard to groups and roles."""
    return [t for o in optimizers for t in tensors_in(o.state_dict()["state"])]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_prediction_before_any_step_is_what_is_kept_after_it(name, model):
    built = MODELS[model]()
    routing = route(built, settings(name))
    before = state_bytes(routing.optimizers)
    assert before["total"] == 0 and before["predicted"] > 0
    after = state_bytes(stepped(built, settings(name)).optimizers)
    assert after["total"] == after["predicted"] == before["predicted"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_parts_add_up_to_every_tensor_in_the_state(name, model):
    built = MODELS[model]()
    routing = stepped(built, settings(name))
    found = state_bytes(routing.optimizers)
    tensors = counted(routing.optimizers)
    assert found["total"] == sum(t.numel() * t.element_size() for t in tensors)
    for part in ("by_role", "by_optimizer", "by_dtype"):
        assert sum(found[part].values()) == found["total"]
    assert found["by_role"].keys() == routing.roles.keys()
    assert found["by_optimizer"].keys() == {row["optimizer"] for row in routing.table}
    assert found["by_dtype"].keys() == {"float32", *(["int8"] if name == "muon_8bit" else [])}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "hybrid", "torch_muon"])
def test_each_role_keeps_one_value_under_muon_and_two_under_adam(name, model):
    built = MODELS[model]()
    block = settings(name)
    routing = stepped(built, block)
    found = state_bytes(routing.optimizers)["by_role"]
    for role, members in routing.roles.items():
        rule = block["roles"].get(role, block["roles"].get("default"))
        values = 4 * sum(p.numel() for p in members)
        muon = is_muon(locate(rule["_target_"]))
        assert found[role] == (values if muon else 2 * values + 4 * len(members))


@pytest.mark.parametrize("model", MODELS)
def test_pure_muon_keeps_half_of_adamw_and_hybrid_lies_between(model):
    totals = {}
    for name in ("adamw", "hybrid", "muon"):
        built = MODELS[model]()
        totals[name] = state_bytes(stepped(built, settings(name)).optimizers)["total"]
    values = 4 * sum(p.numel() for p in built.parameters())
    assert totals["muon"] == values
    assert totals["adamw"] == 2 * values + 4 * len(list(built.parameters()))
    assert totals["muon"] < totals["hybrid"] < totals["adamw"]


@pytest.mark.parametrize("qkv", ["fused", "split", "per_head", "head_groups"])
def test_the_reading_of_qkv_changes_no_byte(qkv):
    built = tiny_gpt2()
    found = state_bytes(stepped(built, settings("muon", qkv=qkv)).optimizers)
    assert found["total"] == 4 * sum(p.numel() for p in built.parameters())


def one(optimizer, dtype=torch.float32, **options):
    p = nn.Parameter(torch.ones(6, 4, dtype=dtype))
    p.grad = torch.ones_like(p)
    built = optimizer([{"params": [p], "role": "hidden"}], lr=0.1, **options)
    built.step()
    return [built]


@pytest.mark.parametrize(
    ("optimizer", "options", "dtype", "total"),
    [
        (torch.optim.AdamW, {}, torch.float32, 2 * 96 + 4),
        (torch.optim.AdamW, {"amsgrad": True}, torch.float32, 3 * 96 + 4),
        (torch.optim.AdamW, {}, torch.bfloat16, 2 * 48 + 4),
        (torch.optim.Adam, {"fused": True}, torch.float32, 2 * 96 + 4),
        (Muon, {}, torch.bfloat16, 48),
        (Muon, {}, torch.float64, 192),
        (torch.optim.Muon, {}, torch.float32, 96),
        (torch.optim.NAdam, {}, torch.bfloat16, 2 * 48 + 8),
        (torch.optim.SGD, {"momentum": 0.9}, torch.bfloat16, 48),
        (torch.optim.SGD, {}, torch.float32, 0),
    ],
)
def test_known_optimizers_in_other_dtypes_and_modes(optimizer, options, dtype, total):
    found = state_bytes(one(optimizer, dtype, **options))
    assert found["total"] == found["predicted"] == total
    assert found["by_role"] == ({"hidden": total} if total else {})


def test_what_is_neither_ours_nor_torchs_adam_is_measured_but_not_predicted():
    class Own(torch.optim.AdamW):
        pass

    for optimizer, total in ((torch.optim.Adagrad, 96 + 4), (Own, 2 * 96 + 4)):
        found = state_bytes(one(optimizer))
        assert found["total"] == total and found["predicted"] is None
    known, unknown = one(Muon), one(torch.optim.Adagrad)
    assert predicted_bytes(known) == 96
    assert predicted_bytes(known + unknown) is None
    assert state_bytes(known + unknown)["by_optimizer"] == {"Muon": 96, "Adagrad": 100}


def test_tensors_are_found_in_nested_states():
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    nested = {"a": a, "deep": [{"b": b}, (c, 1, None)], "number": 3}
    assert [id(t) for t in tensors_in(nested)] == [id(a), id(b), id(c)]

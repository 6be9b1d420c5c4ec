"""Roles to optimizers: every optimizer's YAML on both models, the table, and what is refused."""

import pytest
import torch
from torch import nn

from optimizers.routing import route
from optimizers.structure import NO_STRUCTURE
from tests.helpers.suite import (  # noqa: F401 - run here with the fixtures below
    test_a_saved_state_goes_on_as_if_never_stopped,
    test_a_schedule_multiplies_the_base_rates,
    test_the_block_is_not_changed_so_that_it_can_be_used_again,
    test_the_partition_is_exact,
    test_the_rates_are_the_rules_times_the_scales,
    test_the_same_start_gives_the_same_bits,
    test_the_table_tells_what_the_optimizers_hold,
    test_twenty_steps_learn_and_stay_finite,
    test_zero_grad_forgets_the_gradients,
)
from tests.helpers.zoo import (
    HEADS,
    OPTIMIZERS,
    POSITIONS,
    QKV,
    SIZE,
    VOCABULARY,
    WIDTH,
    distance,
    rows,
    settings,
    tiny_gpt2,
    tiny_llama,
    tiny_vit,
    train,
    weights,
)


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request):
    return request.param


# every optimizer on every model --------------------------------------------------------------


def test_vectors_and_positions_do_not_decay_and_the_rest_does_alike(optimizer, build):
    decays = {}
    for row in rows(optimizer, build).values():
        decays.setdefault(row["role"] in ("vector", "position"), set()).add(row["weight_decay"])
    assert decays[True] == {0.0}
    others = {"adam": {0.0}, "muonh": {0.0, 0.1}}  # muonh keeps the norm of what Muon updates
    others["sgd"] = {2e-4}  # an L2 term, which the momentum sums up
    assert decays[False] == others.get(optimizer, {0.1})


@pytest.mark.parametrize("qkv", QKV)
@pytest.mark.parametrize("output", ["whole", "per_head"])
def test_pure_muon_learns_under_every_reading_of_qkv(build, qkv, output):
    model = build()
    losses = train(model, route(model, settings("muon", qkv=qkv, qkv__output=output)), 20)
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize(("build", "same"), [(tiny_gpt2, "fused"), (tiny_vit, "split")])
def test_torchs_muon_equals_hybrid_on_tensors_as_stored(build, same):
    """Both in bf16 on matrices as they lie; the other reading of qkv goes elsewhere."""
    rounding = {"orthogonalizer__dtype": "bf16", "orthogonalizer__method": "newton_schulz"}
    start, theirs = weights(build()), build()
    theirs_losses = train(theirs, route(theirs, settings("torch_muon")), 10)
    ends = {}
    for qkv in ("fused", "split"):
        ours = build()
        losses = train(ours, route(ours, settings("hybrid", qkv=qkv, **rounding)), 10)
        ends[qkv] = distance(theirs, start, ours)
        if qkv == same:
            assert losses == pytest.approx(theirs_losses, rel=0.01)
    (other,) = {"fused", "split"} - {same}
    assert ends[same] < 0.05
    assert ends[other] > 3 * ends[same]


# by hand -------------------------------------------------------------------------------------


def test_only_the_roles_and_their_targets_must_be_said():
    """Else rates are the optimizers' own, and scales are 1."""
    model = tiny_gpt2()
    roles = {
        "hidden": {"_target_": "optimizers.muon.Muon"},
        "default": {"_target_": torch.optim.SGD},
    }
    routing = route(model, {"roles": roles})
    assert routing.rates() == dict.fromkeys(("hidden", "embedding", "position", "vector"), 1e-3)
    losses = train(model, routing, 5)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("qkv", ["split", {}, {"name": "split"}])
def test_qkv_by_hand_is_a_name_or_says_what_differs(qkv):
    rule = {"_target_": "optimizers.muon.Muon", "lr": 1e-3, "qkv": qkv}
    table = route(tiny_gpt2(), {"roles": {"default": rule}}).table
    (row,) = (row for row in table if row["name"].endswith("h.0.attn.c_attn.weight"))
    assert row["matrices"] == [[3, WIDTH, WIDTH]]


# the table -----------------------------------------------------------------------------------


GPT2_QKV = {
    "fused": [[1, 3 * WIDTH, WIDTH]],
    "split": [[3, WIDTH, WIDTH]],
    "per_head": [[3 * HEADS, SIZE, WIDTH]],
    "head_groups": [[3 * HEADS // 2, 2 * SIZE, WIDTH]],
}


@pytest.mark.parametrize("qkv", QKV)
def test_gpt2s_matrices(qkv):
    found = rows("muon", tiny_gpt2, qkv=qkv)
    layer = "transformer.h.1"
    matrices = GPT2_QKV[qkv]
    assert found[f"{layer}.attn.c_attn.weight"]["matrices"] == matrices
    ((count, height, _),) = matrices
    assert found[f"{layer}.attn.c_attn.bias"]["matrices"] == [[count, height, 1]]
    assert found[f"{layer}.attn.c_proj.weight"]["matrices"] == [[1, WIDTH, WIDTH]]
    assert found[f"{layer}.mlp.c_fc.weight"]["matrices"] == [[1, 4 * WIDTH, WIDTH]]
    assert found[f"{layer}.mlp.c_proj.weight"]["matrices"] == [[1, WIDTH, 4 * WIDTH]]
    assert found[f"{layer}.ln_1.weight"]["matrices"] == [[1, WIDTH, 1]]
    assert found["transformer.wte.weight"]["matrices"] == [[1, VOCABULARY, WIDTH]]
    assert found["transformer.wpe.weight"]["matrices"] == [[1, WIDTH, POSITIONS]]
    assert all(row["joined_with"] == [] for row in found.values())


@pytest.mark.parametrize("qkv", QKV)
@pytest.mark.parametrize(("kind", "columns"), [("weight", WIDTH), ("bias", 1)])
def test_vits_matrices_and_what_fused_joins(qkv, kind, columns):
    found = rows("muon", tiny_vit, qkv=qkv)
    names = [f"vit.layers.1.attention.{p}_proj.{kind}" for p in "qkv"]
    want = {
        "fused": [[1, 3 * WIDTH, columns]],
        "split": [[1, WIDTH, columns]],
        "per_head": [[HEADS, SIZE, columns]],
        "head_groups": [[HEADS // 2, 2 * SIZE, columns]],
    }[qkv]
    for name in names:
        assert found[name]["matrices"] == want
        others = [other for other in names if other != name]
        assert found[name]["joined_with"] == (others if qkv == "fused" else [])
    joined = {name for name, row in found.items() if row["joined_with"]}
    per_layer = 6  # weights and biases of q, k and v
    assert len(joined) == (2 * per_layer if qkv == "fused" else 0)
    projection = found["vit.embeddings.patch_embeddings.projection.weight"]
    assert projection["matrices"] == [[1, WIDTH, 16]]
    assert found["vit.embeddings.cls_token"]["matrices"] == [[1, WIDTH, 1]]
    assert found["vit.embeddings.position_embeddings"]["matrices"] == [[1, WIDTH, 5]]


@pytest.mark.parametrize(
    ("qkv", "q", "k"),
    [
        ("fused", [[1, 2 * WIDTH, WIDTH]], [[1, 2 * WIDTH, WIDTH]]),
        ("split", [[1, WIDTH, WIDTH]], [[1, 2 * SIZE, WIDTH]]),
        ("per_head", [[HEADS, SIZE, WIDTH]], [[2, SIZE, WIDTH]]),
        ("head_groups", [[HEADS // 2, 2 * SIZE, WIDTH]], [[1, 2 * SIZE, WIDTH]]),
    ],
)
def test_grouped_query_attention_has_fewer_heads_of_k_and_v(qkv, q, k):
    found = rows("hybrid", tiny_llama, qkv=qkv)
    prefix = "model.layers.0.self_attn"
    assert found[f"{prefix}.q_proj.weight"]["matrices"] == q
    assert found[f"{prefix}.k_proj.weight"]["matrices"] == k
    assert found[f"{prefix}.v_proj.weight"]["matrices"] == k


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_vit, tiny_llama])
def test_the_output_projection_is_cut_by_heads_only_where_asked(build):
    for output, want in (
        ("whole", [[1, WIDTH, WIDTH]]),
        ("per_head", [[HEADS, WIDTH, SIZE]]),
    ):
        found = rows("hybrid", build, qkv__output=output)
        outputs = [row for row in found.values() if "output projection" in row["reason"]]
        assert outputs and all(row["matrices"] == want for row in outputs)


def test_qkv_is_read_by_no_other_than_muon():
    found = rows("hybrid", tiny_vit, qkv="fused")
    assert found["vit.layers.0.attention.q_proj.weight"]["joined_with"]
    assert found["vit.layers.0.attention.q_proj.bias"]["joined_with"] == []  # AdamW's
    assert rows("adamw", tiny_vit, qkv="fused") == rows("adamw", tiny_vit, qkv="per_head")


def test_torchs_muon_is_shown_tensors_as_stored():
    found = rows("torch_muon", tiny_gpt2)
    assert found["transformer.h.0.attn.c_attn.weight"]["matrices"] == [[1, WIDTH, 3 * WIDTH]]


# what is refused -----------------------------------------------------------------------------


def refused(match, block, model=None):
    with pytest.raises(ValueError, match=match) as caught:
        route(model or tiny_gpt2(), block)
    assert 1 <= len(str(caught.value).splitlines()) <= 2


def test_a_role_that_does_not_exist():
    block = settings("hybrid")
    block["roles"]["hiden"] = block["roles"]["hidden"]
    refused(r"roles\.hiden: .*hidden, conv, embedding, position, head, vector", block)


def test_a_role_without_a_rule_is_named_with_a_parameter():
    block = settings("hybrid")
    del block["roles"]["default"]
    refused(r"no rule for role embedding, which transformer\.wte\.weight has", block)


@pytest.mark.parametrize(
    "target",
    ["AdamW", "torch.optim.AdamX", "no_such_package.Muon", "torch.nn.Linear", "math.pi", ""],
)
def test_a_target_that_is_no_optimizer(target):
    block = settings("hybrid")
    block["roles"]["hidden"]["_target_"] = target
    refused(f"_target_={target}: ", block)


@pytest.mark.parametrize("block", [{}, {"roles": None}, {"roles": {}}, {"roles": "hybrid"}])
def test_a_block_without_roles(block):
    refused(r"optimizer\.roles=.*: must map roles \(hidden, .*default\) to \{_target_", block)


@pytest.mark.parametrize("rule", [None, "torch.optim.AdamW", {"lr": 1e-3}])
def test_a_rule_without_a_target(rule):
    block = settings("hybrid")
    block["roles"]["vector"] = rule
    refused(r"roles\.vector=.*: must have a _target_, as torch\.optim\.AdamW", block)


@pytest.mark.parametrize("rate", ["1e-3", True, [1e-3]])
def test_a_rate_that_is_no_number(rate):
    block = settings("hybrid")
    block["roles"]["hidden"]["lr"] = rate
    refused(r"roles\.hidden\.lr: must be a number; Muon: .* is no number", block)


def test_a_rate_that_nobody_says():
    class Needy(torch.optim.SGD):
        def __init__(self, params, lr):
            super().__init__(params, lr=lr)

    block = settings("hybrid")
    block["roles"]["vector"] = {"_target_": Needy}
    refused(r"roles\.vector\.lr: must be a number; Needy: has none of its own", block)


def test_an_argument_that_the_optimizer_does_not_know():
    for role, word in (("hidden", "Muon"), ("vector", "AdamW")):
        block = settings("hybrid")
        block["roles"][role]["momentun"] = 0.9
        refused(f"{role}.*{word}.*momentun", block)
    block = settings("hybrid")
    block["roles"]["hidden"]["orthogonalizer"]["setps"] = 5
    refused("setps", block)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_negative_rate(name):
    refused(r"(lr|rate).*-", settings(name) | {"lr_scale": -1.0})


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_vit])
@pytest.mark.parametrize("size", [3, 0, -2, 8])
def test_a_group_size_that_does_not_divide_the_heads(build, size):
    block = settings("hybrid", qkv="head_groups", qkv__heads_per_group=size)
    refused(rf"heads_per_group={size}: does not divide the {HEADS} heads", block, build())


def test_a_group_size_must_divide_the_fewer_heads_of_k_and_v_too():
    block = settings("hybrid", qkv="head_groups", qkv__heads_per_group=4)
    refused("heads_per_group=4: does not divide the 2 heads", block, tiny_llama())


def test_an_unknown_reading_of_qkv():
    refused("qkv=heads: .*per_head", settings("hybrid", qkv__name="heads"))
    refused("qkv.output=split: .*per_head", settings("hybrid", qkv__output="split"))
    refused(
        r"roles\.hidden\.qkv=3: .*per_head", settings("hybrid", optimizer__roles__hidden__qkv=3)
    )
    block = settings("hybrid", qkv="head_groups")
    del block["roles"]["hidden"]["qkv"]["heads_per_group"]
    refused("heads_per_group=None: must be a whole number", block)


def test_a_bad_scale_or_orthogonalizer():
    refused("scale=rms: .*spectral", settings("muon", optimizer__roles__default__scale="rms"))
    refused("method=svd: .*exact", settings("hybrid", orthogonalizer__method="svd"))
    refused("steps=0", settings("hybrid", orthogonalizer__steps=0))


def test_strict_refuses_what_has_no_known_structure():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.experts = nn.Parameter(torch.randn(2, 3, 4))
    lenient = {row["name"]: row for row in route(model, settings("hybrid")).table}
    assert lenient["experts"]["reason"] == NO_STRUCTURE
    assert (lenient["experts"]["optimizer"], lenient["experts"]["weight_decay"]) == ("AdamW", 0.0)
    refused(
        rf"strict=true: {NO_STRUCTURE} for experts", settings("hybrid") | {"strict": True}, model
    )


def test_strict_accepts_the_models_of_the_project(build):
    route(build(), settings("hybrid") | {"strict": True})


def test_frozen_parameters_are_in_no_optimizer_and_not_in_the_table():
    model = tiny_gpt2()
    model.transformer.wte.requires_grad_(False)
    routing = route(model, settings("hybrid"))
    assert "transformer.wte.weight" not in {row["name"] for row in routing.table}
    assert "embedding" not in routing.rates()


def test_any_optimizer_of_torch_can_take_a_role():
    block = settings("hybrid")
    block["roles"]["vector"] = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    model = tiny_gpt2()
    routing = route(model, block)
    assert {row["optimizer"] for row in routing.table if row["role"] == "vector"} == {"SGD"}
    losses = train(model, routing, 10)
    assert losses[-1] < losses[0]

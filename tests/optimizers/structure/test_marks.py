"""Marks and patterns say what a parameter is, and what they say goes before recognition."""

import copy

import pytest
import torch
from torch import nn

from optimizers.routing import route
from optimizers.structure import NO_STRUCTURE, describe, mark
from tests.helpers.zoo import settings, tiny_gpt2, tiny_llama


def by_name(model, patterns=None):
    return {p.name: p for p in describe(model, patterns=patterns)}


def small():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    model.w_in = nn.Parameter(torch.randn(4, 6))
    model.experts = nn.Parameter(torch.randn(3, 4, 6))
    return model


def test_a_mark_says_role_and_layout_and_the_reason_names_it():
    model = small()
    assert mark(model.w_in, role="hidden", layout="transposed") is model.w_in
    mark(model.experts, layout="batch")
    found = by_name(model)
    p = found["w_in"]
    assert (p.role, p.layout, p.reason) == ("hidden", "transposed", "marked")
    assert (found["experts"].role, found["experts"].layout) == ("hidden", "batch")
    assert found["0.weight"].reason == by_name(small())["0.weight"].reason


def test_a_marked_module_marks_all_its_parameters():
    model = small()
    assert mark(model[0], role="vector") is model[0]
    found = by_name(model)
    assert {n for n, p in found.items() if p.reason == "marked"} == {"0.weight", "0.bias"}
    assert (found["0.weight"].role, found["0.weight"].layout) == ("vector", "vector")


def test_a_pattern_precedes_a_mark_and_the_last_pattern_wins():
    model = small()
    mark(model, role="embedding")
    rules = {"*.weight": "vector", "0.w*": {"role": "head", "layout": "transposed"}}
    found = by_name(model, rules)
    assert found["w_in"].reason == "marked"
    assert (found["1.weight"].role, found["1.weight"].reason) == ("vector", "pattern *.weight")
    p = found["0.weight"]
    assert (p.role, p.layout, p.reason) == ("head", "transposed", "pattern 0.w*")
    assert by_name(model, dict(reversed(rules.items())))["0.weight"].role == "vector"


def test_a_role_alone_takes_the_layout_that_is_natural_for_it():
    model = tiny_gpt2()
    patterns = {
        "*.c_fc.weight": "hidden",  # as recognised
        "*.wpe.weight": "hidden",  # a table no longer
        "*.mlp.c_proj.weight": "embedding",
        "*.ln_f.weight": "hidden",
        "*.wte.weight": "head",  # tied: oriented as the head before, and so it stays
    }
    found = by_name(model, patterns)
    assert found["transformer.h.0.mlp.c_fc.weight"].layout == "transposed"
    assert found["transformer.wpe.weight"].layout == "matrix"
    assert found["transformer.h.0.mlp.c_proj.weight"].layout == "table"
    assert found["transformer.ln_f.weight"].layout == "vector"
    assert found["transformer.wte.weight"].layout == "matrix"


def test_attention_keeps_its_heads_unless_the_layout_is_another():
    name = "model.layers.0.self_attn.q_proj.weight"
    plain = by_name(tiny_llama())[name]
    kept = by_name(tiny_llama(), {"*.q_proj.weight": "hidden"})[name]
    assert kept.slices == plain.slices and kept.attention == plain.attention
    assert kept.reason.startswith("pattern *.q_proj.weight; q of 4 heads")
    for rule in ("vector", {"role": "hidden", "layout": "transposed"}):
        other = by_name(tiny_llama(), {"*.q_proj.weight": rule})[name]
        assert not other.slices and other.attention is None
        assert other.reason == "pattern *.q_proj.weight"


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        ({"*.wight": "hidden"}, ["*.wight", "matches no trainable parameter", "0.weight"]),
        ({"*.weight": "hiden"}, ["0.weight", "role=hiden", "hidden, conv"]),
        ({"w_in": {"layout": "diagonal"}}, ["w_in", "layout=diagonal", "matrix, transposed"]),
        ({"w_in": {"role": "hidden", "layout": "batch"}}, ["w_in", "batch", "(4, 6)"]),
        ({"w_in": {"rule": "hidden"}}, ["w_in", "role or {role: …, layout: …}"]),
        ({"w_in": {}}, ["w_in", "must say a role"]),
        ({"w_in": None}, ["w_in", "must say a role"]),
        ({"w_in": 5}, ["w_in", "role=5"]),
    ],
)
def test_a_pattern_that_cannot_be_is_named(patterns, words):
    with pytest.raises(ValueError) as caught:
        describe(small(), patterns=patterns)
    assert all(word in str(caught.value) for word in words), caught.value
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).startswith("structure={")


def test_a_frozen_parameter_is_matched_by_no_pattern():
    model = small()
    model.w_in.requires_grad_(False)
    with pytest.raises(ValueError, match="w_in"):
        describe(model, patterns={"w_in": "hidden"})


@pytest.mark.parametrize("said", [{"role": "hiden"}, {"layout": "batch"}, {"layout": "x"}, {}])
def test_a_mark_that_cannot_be_is_refused_where_it_is_made(said):
    model = small()
    with pytest.raises(ValueError, match="mark"):
        mark(model.w_in, **said)


def test_strict_accepts_what_is_marked():
    block = settings("hybrid") | {"strict": True}
    model = small()
    with pytest.raises(ValueError, match=f"{NO_STRUCTURE} for w_in, experts"):
        route(model, block)
    rules = {"w_in": {"layout": "transposed"}, "experts": {"layout": "batch_transposed"}}
    rows = {row["name"]: row for row in route(model, block, rules).table}
    assert rows["w_in"]["matrices"] == [[1, 6, 4]]
    assert rows["experts"]["matrices"] == [[3, 6, 4]]


def test_a_marked_role_goes_to_its_optimizer_and_back_to_a_copy_without_it():
    model = small()
    mark(model.w_in, role="vector")
    (row,) = (row for row in route(model, settings("hybrid")).table if row["name"] == "w_in")
    assert (row["optimizer"], row["weight_decay"]) == ("AdamW", 0.0)
    assert by_name(copy.deepcopy(model))["w_in"].reason == NO_STRUCTURE

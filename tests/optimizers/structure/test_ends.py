"""Tables and heads: by the model's own word and the order of the forward pass, not by type."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from optimizers.structure import describe


class Bare(nn.Module):
    """A linear map or a table of no type that torch knows."""

    def __init__(self, entries=20):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(entries, 8))

    def forward(self, x):
        return F.linear(x, self.weight) if x.is_floating_point() else F.embedding(x, self.weight)


class NormHead(Bare):
    """As Baichuan's: the normalised weight replaces the parameter in the first eval forward."""

    def forward(self, x):
        if not self.training:
            self.weight = nn.Parameter(F.normalize(self.weight))
        return F.linear(x, self.weight)


class NormalizedLinear(nn.Linear):
    pass


class Model(nn.Module):
    """The head is registered first."""

    def __init__(self, head=None, tokens=None, says=False):
        super().__init__()
        self.head = head or nn.Linear(8, 20)
        self.tokens, self.body = tokens or nn.Embedding(20, 8), nn.Linear(8, 8)
        if says:
            self.get_output_embeddings = lambda: self.head
            self.get_input_embeddings = lambda: self.tokens

    def forward(self, input_ids):
        return self.head(self.body(self.tokens(input_ids)))


def roles(model, **options):
    return {p.name: p.role for p in describe(model, **options) if p.tensor.ndim > 1}


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize(
    "head", [nn.Linear(8, 20), Bare(), NormalizedLinear(8, 20), Bare(20).double().float()]
)
@pytest.mark.parametrize("tokens", [nn.Embedding(20, 8), Bare()])
def test_the_head_is_what_gives_the_output_and_the_table_what_is_looked_up(head, tokens, says):
    found = roles(Model(head, tokens, says))
    expected = {"head.weight": "head", "tokens.weight": "embedding", "body.weight": "hidden"}
    assert found == expected


def test_a_norm_head_that_replaces_its_weight_is_a_head_where_the_model_says_so():
    assert roles(Model(NormHead(), says=True))["head.weight"] == "head"


def test_a_matrix_in_a_module_called_norm_is_no_vector_and_a_gain_of_several_heads_is():
    class HeadNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 4))

        def forward(self, x):
            return (x.unflatten(-1, (2, 4)) * self.weight).flatten(-2)

    class Normed(Model):
        def __init__(self):
            super().__init__()
            self.norm, self.body = HeadNorm(), NormalizedLinear(8, 8)

        def forward(self, input_ids):
            return self.head(self.body(self.norm(self.tokens(input_ids))))

    found = roles(Normed())
    assert found["norm.weight"] == "vector" and found["body.weight"] == "hidden"


def test_several_heads_are_all_heads():
    class Two(Model):
        def __init__(self):
            super().__init__()
            self.value = nn.Linear(8, 3)

        def forward(self, input_ids):
            x = self.body(self.tokens(input_ids))
            return {"logits": self.head(x), "value_logits": self.value(x)}

    found = roles(Two())
    assert [n for n, role in found.items() if role == "head"] == ["head.weight", "value.weight"]


class Named(NamedTuple):
    hidden: torch.Tensor
    logits: torch.Tensor


@dataclass
class Plain:
    hidden: torch.Tensor
    logits: torch.Tensor


@dataclass(slots=True)
class Slotted(Plain):
    pass


@pytest.mark.parametrize("form", [Named, Plain, Slotted, SimpleNamespace, dict])
def test_logits_are_found_in_whatever_holds_them(form):
    """And nothing else that is given: `hidden` is the output of a linear map, too."""

    class Holding(Model):
        def forward(self, input_ids):
            x = self.body(self.tokens(input_ids))
            return form(hidden=x, logits=self.head(x))

    assert roles(Holding()) == roles(Model())


def test_heads_of_whose_outputs_the_mean_is_given_are_all_heads():
    """As of distilled image models."""

    class Distilled(nn.Module):
        def __init__(self, labels):
            super().__init__()
            self.config = SimpleNamespace(num_labels=labels)
            self.body, self.head, self.distilled = (nn.Linear(8, n) for n in (8, 3, 3))

        def forward(self, x):
            x = self.body(x)
            return (self.head(x) + self.distilled(x)) / 2

    model = Distilled(3)
    found = {p.name: p.role for p in describe(model, lambda: model(torch.zeros(1, 8)))}
    heads = {"head.weight": "head", "distilled.weight": "head"}
    assert {name: role for name, role in found.items() if role != "vector"} == {
        "body.weight": "hidden"
    } | heads


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_weight_normed_maps_have_the_role_of_their_module(norm):
    model = nn.Sequential(norm(nn.Embedding(9, 8)), norm(nn.Linear(8, 8)), norm(nn.Linear(8, 3)))
    found = [p for p in describe(model) if p.tensor.numel() > max(p.tensor.shape)]
    assert [(p.role, p.layout) for p in found] == [
        ("embedding", "table"),
        ("hidden", "matrix"),
        ("head", "matrix"),
    ]


def test_an_embedding_bag_is_an_embedding():
    model = nn.Sequential(nn.EmbeddingBag(50, 8), nn.Linear(8, 3))
    assert roles(model) == {"0.weight": "embedding", "1.weight": "head"}


def test_an_accessor_that_raises_is_as_none():
    model = Model()
    model.get_input_embeddings = model.get_output_embeddings = lambda: 1 / 0
    assert roles(model)["head.weight"] == "head"


def test_the_last_linear_of_a_model_that_was_not_run_is_only_taken_for_the_head():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    assert "taken for" in describe(model)[2].reason
    seen = describe(model, forward=lambda: model(torch.zeros(1, 4)))
    assert seen[2].reason == "Linear that gives the model's output"

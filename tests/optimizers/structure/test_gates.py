"""A gate and what it multiplies, stored as one: which rows are whose, and what is made of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optimizers.routing import route
from optimizers.structure import describe
from tests.helpers.zoo import settings
from tests.optimizers.structure.test_recognition import gpt_oss, mixtral

ACTIVATIONS = {
    "silu": F.silu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "swish by hand": lambda x: x * torch.sigmoid(1.7 * x),
}


class MLP(nn.Module):
    """form: from 12 numbers to the 6 of a gated map."""

    def __init__(self, form):
        super().__init__()
        self.emb, self.wide, self.down = nn.Embedding(9, 4), nn.Linear(4, 12), nn.Linear(6, 4)
        self.head, self.form = nn.Linear(4, 9), form

    def forward(self, input_ids):
        return self.head(self.down(self.form(self.wide(self.emb(input_ids)))))


def halves(form):
    return {p.name: p for p in describe(MLP(form))}["wide.weight"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("first", ["gate", "up"])
def test_the_rows_of_gate_and_up_are_read_in_either_order(activation, first):
    def form(x):
        a, b = x.chunk(2, -1)
        return ACTIVATIONS[activation](a) * b if first == "gate" else a * ACTIVATIONS[activation](b)

    starts = {part: start for part, _, start, _ in halves(form).halves}
    assert starts == ({"gate": 0, "up": 6} if first == "gate" else {"gate": 6, "up": 0})
    assert halves(form).reason == "Linear, stored (out, in); gate and up in one, read by probing"


def test_glu_is_one_too():
    assert {h.part: h.start for h in halves(F.glu).halves} == {"up": 0, "gate": 6}


def test_alternate_rows_are_said_and_kept_whole():
    p = halves(lambda x: F.silu(x[..., ::2]) * x[..., 1::2])
    assert not p.halves and p.reason.endswith("in alternate rows, read by probing; kept whole")
    experts = [p for p in describe(gpt_oss()) if p.name.endswith("experts.gate_up_proj")]
    assert all("alternate rows" in p.reason for p in experts)


def test_what_is_no_gate_is_not_called_one():
    p = halves(lambda x: F.silu(x)[..., :6] + x[..., 6:])
    assert not p.halves and p.reason == "Linear, stored (out, in)"


@pytest.mark.parametrize(("gate_up", "count", "rows"), [("whole", 1, 12), ("split", 2, 6)])
def test_whether_they_are_one_matrix_or_two_is_a_setting(gate_up, count, rows):
    model = MLP(lambda x: F.silu(x[..., :6]) * x[..., 6:])
    table = route(model, settings("muon", qkv__gate_up=gate_up)).table
    by_name = {row["name"]: row["matrices"] for row in table}
    assert by_name["wide.weight"] == [[count, rows, 4]]
    assert by_name["wide.bias"] == [[count, rows, 1]]


@pytest.mark.parametrize(("gate_up", "matrices"), [("whole", [4, 48, 16]), ("split", [8, 24, 16])])
def test_every_expert_has_a_gate_and_an_up(gate_up, matrices):
    table = route(mixtral(), settings("hybrid", qkv__gate_up=gate_up)).table
    (row,) = (row for row in table if row["name"].endswith("experts.gate_up_proj"))
    assert row["matrices"] == [matrices]


def test_another_word_is_refused():
    with pytest.raises(ValueError, match=r"qkv.gate_up=halves: must be whole or split"):
        route(mixtral(), settings("hybrid", qkv__gate_up="halves"))


def test_a_gate_whose_other_half_is_a_weight_of_its_own_is_not_said_to_hold_both():
    """As xLSTM's proj_up_gate beside its proj_up, be it probed or not."""

    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj_up_gate, self.proj_up, self.down = (nn.Linear(4, 4) for _ in range(3))
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.down(F.silu(self.proj_up_gate(x)) * self.proj_up(x)))

    model = Apart()
    for forward in (None, lambda: model(torch.zeros(1, 4))):
        found = {p.name: p for p in describe(model, forward)}
        assert found["proj_up_gate.weight"].reason == "Linear, stored (out, in)"

"""Norms of gradients by role: those of before clipping, whatever was clipped."""

import math

import pytest
import torch
from torch import nn

from bench.measuring import meter
from bench.processes.world import ALONE
from bench.training import gradients
from optimizers.muon import Muon
from optimizers.routing import Routing


def roles() -> dict[str, list[nn.Parameter]]:
    torch.manual_seed(0)
    shapes = {"hidden": [(4, 6), (3, 3)], "vector": [(5,)], "frozen": [(2,)]}
    found = {role: [nn.Parameter(torch.randn(s)) for s in each] for role, each in shapes.items()}
    for members in (found["hidden"], found["vector"]):
        for p in members:
            p.grad = torch.randn_like(p)
    return found


@pytest.mark.parametrize("most", [None, 0.01, 1.0, 1e6])
def test_norms_by_role_are_those_before_clipping(most):
    of = roles()
    wanted = {
        role: math.sqrt(sum(p.grad.square().sum().item() for p in of[role]))
        for role in ("hidden", "vector")
    }
    parameters = [p for members in of.values() for p in members]
    norm = gradients.norm(parameters, ALONE)
    if most is not None:
        gradients.clip(parameters, most, norm)
    found = gradients.by_role(of, of, most, norm, ALONE)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert math.hypot(*found.values()) == pytest.approx(norm.item(), rel=1e-5)


@pytest.mark.parametrize("most", [0.01, 1e6])
def test_a_part_is_clipped_by_its_own_norm_and_the_rest_is_untouched(most):
    of = roles()
    raw = {role: [p.grad.clone() for p in of[role]] for role in ("hidden", "vector")}
    part = of["vector"]
    norm = gradients.norm(part, ALONE)
    gradients.clip(part, most, norm)
    slow = math.sqrt(sum(x.item() ** 2 for g in raw["vector"] for x in g.flatten()))
    assert norm.item() == pytest.approx(slow, rel=1e-6)
    factor = min(1.0, most / (slow + gradients.CLIP_EPS))
    for p, g in zip(part, raw["vector"], strict=True):
        torch.testing.assert_close(p.grad, factor * g)
    assert all(torch.equal(p.grad, g) for p, g in zip(of["hidden"], raw["hidden"], strict=True))
    wanted = {role: math.sqrt(sum(g.square().sum().item() for g in raw[role])) for role in raw}
    found = gradients.by_role(of, {"vector"}, most, norm, ALONE)
    assert found == pytest.approx(wanted, rel=1e-5)


class Orthogonal(torch.optim.SGD):
    """Any optimizer of this name, as those of other packages."""


Orthogonal.__name__ = "SomebodysMuon"


def test_the_auxiliary_part_is_what_is_not_muons():
    of = {role: [nn.Parameter(torch.ones(2))] for role in ("hidden", "conv", "vector")}
    kinds = {"hidden": Muon, "conv": Orthogonal, "vector": torch.optim.AdamW}
    optimizers = [
        kind([{"params": [nn.Parameter(torch.ones(2, 2))], "role": role}], lr=0.1)
        for role, kind in kinds.items()
    ]
    routing = Routing(optimizers, [], of)
    assert gradients.clipped(routing, "auxiliary") == {"vector"}
    assert gradients.clipped(routing, None) == set(of)
    with pytest.raises(ValueError, match=r"train\.clip_part=auxiliary: .* all are Muon's"):
        gradients.clipped(Routing(optimizers[:2], [], of), "auxiliary")


def test_a_sparse_gradient_counts_its_rows_once():
    table = nn.Embedding(8, 2, sparse=True)
    table(torch.tensor([3, 3, 5])).sum().backward()
    norm = gradients.norm([table.weight], ALONE)
    found = gradients.by_role({"embedding": [table.weight]}, (), None, norm, ALONE)
    assert found["embedding"] == pytest.approx(math.sqrt(2 * 4 + 2 * 1))


def test_the_rms_of_weights_is_over_all_numbers_of_a_role():
    halves = [torch.full((2, 3), 2.0), torch.full((6,), -4.0)]
    assert meter.rms({"hidden": halves}, ALONE) == {"hidden": pytest.approx(math.sqrt(10))}

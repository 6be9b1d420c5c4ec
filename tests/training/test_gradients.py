"""Norms of gradients by role: those of before clipping, whatever was clipped."""

import math

import pytest
import torch
from torch import nn

from bench.measuring import meter
from bench.processes.world import ALONE
from bench.training import gradients


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
    found = gradients.by_role(of, most, norm, ALONE)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert math.hypot(*found.values()) == pytest.approx(norm.item(), rel=1e-5)


def test_a_sparse_gradient_counts_its_rows_once():
    table = nn.Embedding(8, 2, sparse=True)
    table(torch.tensor([3, 3, 5])).sum().backward()
    norm = gradients.norm([table.weight], ALONE)
    found = gradients.by_role({"embedding": [table.weight]}, None, norm, ALONE)
    assert found["embedding"] == pytest.approx(math.sqrt(2 * 4 + 2 * 1))


def test_the_rms_of_weights_is_over_all_numbers_of_a_role():
    halves = [torch.full((2, 3), 2.0), torch.full((6,), -4.0)]
    assert meter.rms({"hidden": halves}, ALONE) == {"hidden": pytest.approx(math.sqrt(10))}

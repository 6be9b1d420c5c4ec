"""The checks of what an optimizer computes and keeps for one matrix."""

import torch

from bench.laboratory.statements import cost, updates


class Mixing(torch.optim.Optimizer):
    """Multiplies matrices: not element-wise."""

    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p.sub_(p.grad @ p.grad.mT @ p.grad)


def test_adamw_is_element_wise_and_muon_is_not(monkeypatch):
    check = cost.adam_elementwise(seed=0)
    assert check.verdict == "confirmed" and check.value == 0
    assert "Muon's step has 15 products" in check.condition
    monkeypatch.setattr(updates, "adamw", Mixing)
    check = cost.adam_elementwise(seed=0)
    n, m = updates.SHAPE
    assert check.verdict == "refuted" and check.value == 2 * 2 * n * n * m


def test_entries_that_trade_places_show_what_mixes_them():
    assert cost.moved_entries(torch.optim.Adam, seed=1) == 0
    assert cost.moved_entries(Mixing, seed=1) > 1


def test_the_state_of_a_lone_matrix(monkeypatch):
    weights = 4 * cost.SIDE**2
    assert cost.measured_state(updates.muon) == weights
    assert cost.measured_state(updates.adamw) == 2 * weights + 4  # and a counter
    check = cost.lone_matrix_state()
    assert check.verdict == "confirmed" and abs(check.value - 0.5) < 1e-5
    assert "state together the saving is 33.3%" in check.condition
    monkeypatch.setattr(updates, "muon", updates.adamw)
    assert cost.lone_matrix_state().verdict == "refuted"

"""Muon's step begun in the backward pass: the same updates, whatever comes late or not at all."""

import threading

import pytest
import torch
from torch import nn

from optimizers.muon import Muon
from optimizers.overlap import Overlap, bundles
from optimizers.views import View, whole

pytestmark = pytest.mark.cpu
WIDTH = 12


class Chain(nn.Module):
    """Layers of which one may be left out of the forward pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(6))

    def forward(self, x, without=None):
        for i, layer in enumerate(self.layers):
            x = x if i == without else torch.tanh(layer(x))
        return x.square().mean()


def trained(overlapped, steps=4, backwards=1, without=None, views=None, **settings):
    model = Chain()
    group = {"params": list(model.parameters())} | ({"views": views} if views else {})
    muon = Muon([group], lr=0.05, orthogonalizer=dict(dtype="fp32"), **settings)
    overlap = Overlap(muon, elements=2 * WIDTH**2) if overlapped else None
    for step in range(steps):
        for i in range(backwards):
            x = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(10 * step + i))
            loss = model(x, without if step % 2 else None)
            if overlap and i == backwards - 1:
                with overlap:
                    loss.backward()
            else:
                loss.backward()
        muon.step()
        muon.zero_grad()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum_form": "classical", "nesterov": False},
        {"second_moment": "neuron"},
        {"second_moment": "element", "sign": True},
        {"shards": 3, "period": 2},
        {"cautious": True},
        {"keep_norm": True, "weight_decay": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("without", [None, 2])
def test_updates_are_those_of_the_step_alone(settings, without):
    pairs = zip(*(trained(o, without=without, **settings) for o in (True, False)), strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_of_several_backward_passes_the_last_begins():
    for got, want in zip(trained(True, backwards=3), trained(False, backwards=3), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_a_matrix_that_views_join_waits_for_all_its_tensors():
    size = [0, WIDTH]
    views = [View(members=[0, 5], layout="matrix", axis=0, blocks=[[[0, *size], [5, *size]]])]
    views += [whole(k, torch.empty(WIDTH, WIDTH), "matrix") for k in range(1, 5)]
    muon = Muon([{"params": list(Chain().parameters()), "views": views}])
    together = [b for b in bundles(muon, muon.param_groups[0], WIDTH**2) if 0 in b]
    assert together == [frozenset({0, 5})]
    pairs = zip(*(trained(o, views=views) for o in (True, False)), strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_the_last_layers_are_stepped_before_the_first_has_its_gradient():
    """The first layer's gradient waits until the step of the last bundle is done."""
    model = Chain()
    muon = Muon(model.parameters(), orthogonalizer=dict(dtype="fp32"))
    overlap = Overlap(muon, elements=2 * WIDTH**2)
    last, stepped = model.layers[-1].weight, threading.Event()
    before, ahead = last.detach().clone(), muon.step_ahead

    def told(number, members):
        ahead(number, members)
        stepped.set()

    muon.step_ahead = told
    model.layers[0].weight.register_hook(lambda grad: assert_(stepped.wait(60)))
    with overlap:
        model(torch.ones(2, WIDTH)).backward()
    assert not torch.equal(before, last)
    muon.step()


def assert_(condition):
    assert condition


def test_what_a_step_raises_is_raised():
    model = Chain()
    muon = Muon(model.parameters())
    overlap = Overlap(muon)
    muon.param_groups[0]["scale"] = "nope"
    with overlap:
        model(torch.ones(2, WIDTH)).backward()
    with pytest.raises(ValueError, match="scale=nope"):
        muon.step()


def test_a_second_backward_pass_before_the_step_is_refused():
    model = Chain()
    overlap = Overlap(Muon(model.parameters()))
    with overlap:
        model(torch.ones(2, WIDTH)).backward()
    with pytest.raises(RuntimeError, match="before the step"), overlap:
        pass

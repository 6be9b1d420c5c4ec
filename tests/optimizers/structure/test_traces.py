"""A model that was read is as it was, whatever its forward pass does."""

import random

import torch
import torch.nn.functional as F
from torch import nn

from optimizers.structure import describe
from optimizers.structure.traces import untouched


class Restless(nn.Module):
    """Changes everything that a forward pass can change."""

    def __init__(self):
        super().__init__()
        self.tokens, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("late", torch.zeros(2), persistent=False)
        self.plain, self.cache, self.count = torch.zeros(2), [], 0
        self.replaced, self.written = (nn.Parameter(torch.randn(4, 4)) for _ in range(2))

    def forward(self, input_ids):
        self.calls += 1
        self.late = torch.ones(3)
        self.plain.add_(1)
        self.cache.append(input_ids)
        self.count += 1
        self.training = True
        self.extra = nn.Linear(2, 2)
        self.written[0] = 5.0
        self.written.mul_(2.0)
        self.head.weight.data = self.head.weight.data * 2
        if isinstance(self.replaced, nn.Parameter):
            self.replaced = nn.Parameter(F.normalize(self.replaced))
        x = self.tokens(input_ids) + torch.randn(4) + random.random()
        return self.head(x @ self.replaced @ self.written)


def test_no_trace_is_left_of_a_forward_pass_that_changes_everything():
    model = Restless().eval()
    names = list(vars(model))
    before = {n: t.clone() for n, t in model.state_dict().items()} | {"late": model.late.clone()}
    parameters = {n: (p, p.data_ptr()) for n, p in model.named_parameters()}
    states = torch.get_rng_state(), random.getstate()
    with torch.no_grad():
        found = {p.name: p for p in describe(model)}
    assert found["written"].layout == "transposed" and found["head.weight"].role == "head"
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert {n: (p, p.data_ptr()) for n, p in model.named_parameters()} == parameters
    after = model.state_dict() | {"late": model.late}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert (model.cache, model.count, model.training) == ([], 0, False)
    assert list(vars(model)) == names and not model.plain.any() and not hasattr(model, "extra")


def test_a_pass_that_fails_leaves_none_either():
    model = Restless()
    before = model.written.detach().clone()
    try:
        with untouched(model) as kept:
            kept.before(torch.Tensor.zero_, (model.written,), {})
            model.written.data.zero_()
            raise RuntimeError
    except RuntimeError:
        pass
    assert torch.equal(model.written, before)


def test_a_graph_made_before_may_still_run_backwards():
    model = Restless()
    model.register_buffer("places", torch.tensor([0, 1]))
    loss = model.tokens.weight[model.places].square().sum()
    describe(model)
    loss.backward()


def test_a_large_parameter_is_copied_only_when_something_writes_in_it():
    model = nn.Linear(4, 4)
    with untouched(model) as kept:
        kept.before(torch.add, (model.weight, 1.0), {})
        assert id(model.weight) not in kept.copies
        kept.before(torch.Tensor.add_, (model.weight[0], 1.0), {})
        assert id(model.weight) in kept.copies and id(model.bias) not in kept.copies

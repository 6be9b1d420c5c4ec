"""Optimizers that evaluate other weights than they train: what is trained stays as it was."""

import pytest
import torch

from optimizers.modes import evaluating
from optimizers.routing import locate, route
from tests.helpers.commands import settle
from tests.helpers.runs import curve
from tests.helpers.zoo import settings, tiny_gpt2, weights
from tests.helpers.zoo import train as learn

pytest.importorskip("pytorch_optimizer")
each = pytest.mark.parametrize("name", ["schedule_free_adamw", "splus"])


@each
def test_evaluations_see_other_weights_and_change_no_bit_of_the_training(name):
    watched, plain = tiny_gpt2(), tiny_gpt2()
    ways = route(watched, settings(name)), route(plain, settings(name))
    for _ in range(3):
        learn(watched, ways[0], 2)
        learn(plain, ways[1], 2)
        trained = weights(watched)
        with evaluating(ways[0].optimizers):
            seen = weights(watched)
        assert not any(torch.equal(a, b) for a, b in zip(trained, seen, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(trained, weights(watched), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(watched), strict=True))


def test_schedule_free_evaluates_the_mean_of_what_it_steps():
    """At a constant rate the evaluated weights are the plain mean of the stepped ones, z."""
    model = tiny_gpt2()
    routing = route(model, settings("schedule_free_adamw"))
    stepped = []
    for _ in range(4):
        learn(model, routing, 1)
        states = {p: o.state[p] for o in routing.optimizers for p in o.state}
        stepped.append([states[p]["z"].clone() for p in model.parameters()])
    with evaluating(routing.optimizers):
        for p, *zs in zip(weights(model), *stepped, strict=True):
            assert torch.allclose(p, torch.stack(zs).mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.more
@each
def test_the_trainer_records_the_losses_of_the_weights_to_evaluate(
    name, train, tmp_path, monkeypatch
):
    _, switched, _ = train(f"optimizer={name}")
    cls = locate(settings(name)["roles"]["default"]["_target_"])
    for mode in ("eval", "train"):
        monkeypatch.delattr(cls, mode)
    _, plain, _ = train(f"optimizer={name}", results=tmp_path / "plain")
    losses = [
        [line["train_loss"] for line in curve(one) if "train_loss" in line]
        for one in (switched, plain)
    ]
    assert losses[0] == losses[1]
    assert switched["val_loss"] != plain["val_loss"]
    assert switched["test_loss"] != plain["test_loss"]


@each
def test_what_averages_its_weights_has_a_constant_rate_unless_another_is_asked_for(name):
    assert settle(f"optimizer={name}").schedule["name"] == "constant"
    assert settle("schedule=cosine", f"optimizer={name}").schedule["name"] == "cosine"
    assert settle("optimizer=adamw").schedule["name"] == "wsd"


def test_others_are_left_alone_and_copied_in_no_memory(monkeypatch):
    model = tiny_gpt2()
    optimizers = route(model, settings("hybrid")).optimizers
    monkeypatch.setattr(torch.Tensor, "clone", lambda *_: pytest.fail("a copy was made"))
    with evaluating(optimizers):
        pass


def test_the_weights_to_train_come_back_after_an_error():
    model = tiny_gpt2()
    routing = route(model, settings("schedule_free_adamw"))
    learn(model, routing, 2)
    trained = weights(model)
    with pytest.raises(KeyError), evaluating(routing.optimizers):
        raise KeyError
    assert all(torch.equal(a, b) for a, b in zip(trained, weights(model), strict=True))
    assert all(group["train_mode"] for o in routing.optimizers for group in o.param_groups)

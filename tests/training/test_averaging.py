"""Averaged weights: of which steps, their losses in the record, and a run that is as without."""

import pytest
import torch
from torch import nn

from bench.training.averaging import Average
from tests.helpers.runs import curve, same_result, stop_at


@pytest.mark.parametrize(("share", "steps"), [(0.3, 3), (0.9, 9), (1.0, 10), (0.01, 1), (None, 0)])
def test_it_is_the_mean_over_the_last_share_of_the_steps(share, steps):
    model = nn.Linear(3, 2)
    average = Average(model, share)
    values = []
    for step in range(1, 11):
        with torch.no_grad():
            model.weight.fill_(step**2)
        average.add(step / 10)
        values.append(float(step**2))
    assert average.count == steps
    if steps:
        mean = sum(values[-steps:]) / steps
        with average.in_place():
            assert torch.allclose(model.weight, torch.tensor(mean))
    assert (model.weight == 100).all()


def test_weights_come_back_to_the_bit_also_after_an_error():
    model = nn.Linear(3, 2)
    average = Average(model, 1.0)
    average.add(0.5)
    with torch.no_grad():
        model.weight.mul_(3.7)
    own = model.weight.detach().clone()
    with pytest.raises(KeyError), average.in_place():
        assert not torch.equal(model.weight, own)
        raise KeyError
    assert torch.equal(model.weight, own)


@pytest.mark.more
def test_a_run_has_the_losses_of_its_average_and_is_else_as_without(train):
    _, plain, _ = train()
    _, averaged, _ = train("train.average_last=0.5")
    assert curve(plain) == curve(averaged) and plain["test_loss"] == averaged["test_loss"]
    assert plain["cell"] != averaged["cell"] and "test_loss_averaged" not in plain
    for part in ("val_loss", "test_loss"):
        assert averaged[f"{part}_averaged"] != averaged[part]
        assert averaged[f"{part}_averaged"] == pytest.approx(averaged[part], abs=0.5)
    _, last, _ = train("train.average_last=0.1")  # the last of six steps alone
    for part in ("val_loss", "test_loss"):
        assert last[f"{part}_averaged"] == last[part]


@pytest.mark.more
@pytest.mark.parametrize("model", ["gpt2_nano", "gpt2_nano_untied"])
def test_a_run_that_failed_goes_on_with_its_average(train, tmp_path, monkeypatch, model):
    words = f"model={model}", "train.average_last=0.9"
    _, whole, _ = train(*words, results=tmp_path / "whole")
    stop_at(monkeypatch, 5, RuntimeError("gone"))
    train(*words)
    _, resumed, said = train(*words)
    assert any("from step 4" in line for line in said) and same_result(whole, resumed)
    for part in ("val_loss_averaged", "test_loss_averaged"):
        assert whole[part] == resumed[part]

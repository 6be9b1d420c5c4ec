"""A model that is not built in is tried before work: what does not fit, and what looks ahead."""

import json
import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench.settings.errors import UserError
from bench.training import prepare, trial
from models import gpt2
from tests.helpers.commands import FP32, settle

TEXT = {"vocab_size": 99}
IMAGES = {"image_size": 8, "channels": 1, "classes": 5}


class Mixer(nn.Module):
    """Adds to each token the mean of those it may see; `ahead` of them lie after it."""

    def __init__(self, ahead: int = 0, zero: bool = False) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(99, 16), nn.Linear(16, 16, bias=False)
        self.head, self.ahead = nn.Linear(16, 99), ahead
        self.register_buffer("calls", torch.zeros(1))
        if zero:
            nn.init.zeros_(self.mix.weight)

    def forward(self, input_ids):
        self.calls += 1
        torch.rand(1)
        x, length = self.table(input_ids), input_ids.shape[1]
        seen = torch.ones(length, length).tril(self.ahead)
        return SimpleNamespace(logits=self.head(x + self.mix(seen / seen.sum(1, True) @ x)))


def check(model, facts=TEXT, length=32):
    trial.check(model, "model.source=mine", facts, length)


def refusal(model, facts=TEXT, length=32) -> str:
    with pytest.raises(UserError) as caught:
        check(model, facts, length)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("model.source=mine: ")
    return str(caught.value)


@pytest.mark.parametrize("length", [2, 3, 32, 256])
def test_a_causal_model_is_taken(length):
    check(Mixer(), length=length)
    check(gpt2.build(**TEXT, layers=2, heads=4, width=32, positions=256), length=length)


@pytest.mark.parametrize("ahead", [1, 255])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("length", [2, 3, 32, 256])
def test_a_model_that_sees_later_tokens_is_refused(ahead, zero, length):
    """Also one whose mixing starts at zero, so that nothing comes through as yet."""
    assert "sees the tokens that it is to predict" in refusal(Mixer(ahead, zero), length=length)


def test_the_model_and_the_random_state_are_left_as_they_were():
    model = Mixer(zero=True).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate()
    check(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training and random.getstate() == states[1]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(p.grad is None for p in model.parameters())


class Answers(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape, self.weight = shape, nn.Parameter(torch.ones(1))

    def forward(self, **inputs):
        if not self.shape:
            raise RuntimeError("Kernel size can't be greater\nthan actual input size")
        return SimpleNamespace(logits=self.weight.expand(self.shape))


@pytest.mark.parametrize(
    ("facts", "shape"),
    [
        (TEXT, (2, 1, 99)),  # of the last token alone
        (TEXT, (2, 32, 98)),  # a token without a logit
        (TEXT, (64, 99)),
        (IMAGES, (2, 4)),
        (IMAGES, (2, 3, 3, 5)),
    ],
)
def test_logits_of_another_shape_are_refused_with_both_shapes(facts, shape):
    said = refusal(Answers(*shape), facts)
    assert str(shape) in said and "needs (2, " in said


def test_a_model_without_logits_is_refused_by_the_type_of_what_it_gives():
    """As transformers' pp_lcnet, whose classes have another name."""

    class Hidden(Answers):
        def forward(self, **inputs):
            return SimpleNamespace(last_hidden_state=super().forward(**inputs).logits)

    said = refusal(Hidden(2, 5), IMAGES)
    assert said.endswith("gives no logits, which the loss needs (SimpleNamespace)")


def test_what_the_model_raises_is_one_line_with_the_shape_of_the_data():
    said = refusal(Answers(), IMAGES)
    assert "pixel_values (2, 1, 8, 8)" in said and "greater than actual" in said


def test_a_hub_model_that_looks_ahead_is_refused_when_it_is_built(tmp_path):
    sizes = {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "xlnet", **sizes}))
    settings = settle(*FP32, "model=hub", f"model.source={tmp_path}", "train.sequence_length=32")
    read = SimpleNamespace(facts={"vocab_size": 99})
    with pytest.raises(UserError, match=f"model.source={tmp_path}: sees the tokens"):
        prepare.model(settings, read)


FEW = {"depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4}


@pytest.mark.parametrize(
    ("model_type", "sizes", "reason"),
    [
        ("pp_lcnet", {}, "to have 3 channels, but got 1"),
        ("pvt", FEW, "Kernel size can't be greater than actual input size"),
    ],
)
def test_a_hub_model_that_images_do_not_pass_is_refused_when_it_is_built(
    model_type, sizes, reason, tmp_path
):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **sizes}))
    settings = settle(*FP32, "model=hub", f"model.source={tmp_path}", "data=fashion_mnist")
    facts = {"image_size": 28, "channels": 1, "classes": 10, "patch_size": 4}
    with pytest.raises(UserError) as caught:
        prepare.model(settings, SimpleNamespace(facts=facts))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(
        f"model.source={tmp_path}: cannot take a batch of pixel_values (2, 1, 28, 28) ("
    )
    assert reason in line and line.endswith("; try another data.image_size or data.channels")

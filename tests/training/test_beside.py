"""Passes beside the run: what they count is that of a batch, and nothing of them is left."""

import copy

import pytest
import torch

from bench.data.random_batches import RandomBatches
from bench.measuring import flops
from bench.training import beside, loss
from models import gpt2
from tests.helpers.passes import IMAGES, Counter, images, text
from tests.helpers.passes import train as asked


@pytest.mark.parametrize("build", [text, images])
def test_a_batch_has_as_many_flops_as_its_examples_together(build):
    model, source = build()
    batch = source.batch(5, 0)
    whole = flops.count(lambda: loss.of(model, batch)[0].backward())
    one = beside.count(model, source.batch(1, 0), asked())
    assert one.flops * 5 == whole.flops > 0 and one.dtype == torch.float32


def test_the_precision_is_the_runs():
    model, source = text()
    one = beside.count(model, source.batch(1, 0), asked("train.precision=bf16"))
    assert one.dtype == torch.bfloat16


def test_a_sparse_table_and_frozen_weights_are_counted():
    model = gpt2.build(
        vocab_size=99, layers=1, heads=2, width=8, positions=16, tied=False, sparse_embedding=True
    )
    model.transformer.h[0].requires_grad_(False)
    batch = RandomBatches("text", 16, {"vocab_size": 99}).batch(1, 0)
    assert beside.count(model, batch, asked()).flops > 0


def test_the_model_is_left_as_it_was():
    model, source = Counter(), RandomBatches("images", 0, IMAGES)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert beside.count(model, source.batch(1, 0), asked()).flops > 0
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_what_cannot_pass_is_not_counted(monkeypatch):
    model, source = text()
    monkeypatch.setattr(loss, "of", None)
    assert beside.count(model, source.batch(1, 0), asked()) is None
    assert model.training


def test_a_run_notes_its_flops_and_its_tokens_a_second(train):
    """By hand: six FLOPs a weight and token, and attention's seven products."""
    _, record, _ = train()
    layers, width, vocabulary, tokens, length = 2, 32, 4096, 64, 32
    weights = layers * 12 * width**2 + vocabulary * width
    found = record["model_flops"]
    assert found["per_step"] == 6 * tokens * weights + layers * 14 * tokens * length * width
    assert found["dtype"] == "float32" and found["peak"] is found["utilization"] is None
    each = found["per_step"] / record["tokens_per_step"]
    assert found["per_second"] == pytest.approx(each * record["throughput"])

"""Passes of the model beside the run, before any work: nothing of them is left in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.measuring import flops
from bench.settings.schema import Train
from bench.training import loss, randomness


@contextmanager
def forward(model: nn.Module, train: Train) -> Iterator[Callable]:
    """The model's forward pass under the run's precision, in eval mode and on copies of its
    buffers; its mode and the random state are put back at the end."""
    before, training = randomness.state(train.device), model.training
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}

    def call(**inputs: Tensor):
        with torch.autocast(train.device, torch.bfloat16, enabled=train.precision == "bf16"):
            return torch.func.functional_call(model, buffers, (), inputs)

    try:
        model.eval()  # a norm over the batch has to do with one example
        yield call
    finally:
        model.train(training)
        randomness.restore(before)


def count(model: nn.Module, example: dict[str, Tensor], train: Train) -> flops.Count | None:
    """FLOPs of the products in forward and backward over one example; None where it cannot pass.

    A batch has as many times more as it has examples. Counted on the model that is not compiled,
    and as torch counts: attention in full, whatever is masked, with what its backward pass does
    again.
    """
    example = {key: value.to(train.device) for key, value in example.items()}
    weights = [p for p in model.parameters() if p.requires_grad]

    def work(call: Callable) -> None:
        torch.autograd.grad(loss.of(call, example)[0], weights, allow_unused=True)

    try:
        with forward(model, train) as call:
            return flops.count(lambda: work(call))
    except Exception:  # whatever the model's own code raises: the first step tells
        return None

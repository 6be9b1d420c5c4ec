"""Passes of the model outside the run, before it starts; they leave no trace in the model."""

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
    buffers; its mode and the random state are restored at the end."""
    before, training = randomness.state(train.device), model.training
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}

    def call(**inputs: Tensor):
        with torch.autocast(train.device, torch.bfloat16, enabled=train.precision == "bf16"):
            return torch.func.functional_call(model, buffers, (), inputs)

    try:
        model.eval()  # so that a batch norm accepts one example
        yield call
    finally:
        model.train(training)
        randomness.restore(before)


def count(model: nn.Module, example: dict[str, Tensor], train: Train) -> flops.Count | None:
    """FLOPs of the products in forward and backward over one example; None if the pass fails.

    A batch takes these FLOPs times its number of examples. Counted on the uncompiled model and in
    torch's way: full attention, whatever is masked, and recomputation in its backward pass.
    """
    example = {key: value.to(train.device) for key, value in example.items()}
    weights = [p for p in model.parameters() if p.requires_grad]

    def work(call: Callable) -> None:
        torch.autograd.grad(loss.of(call, example)[0], weights, allow_unused=True)

    try:
        with forward(model, train) as call:
            return flops.count(lambda: work(call))
    except Exception:  # the model may raise anything; the first step reports it
        return None

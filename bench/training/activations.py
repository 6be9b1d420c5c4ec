"""Checks before a run that a batch's activations, kept for the backward pass, fit in memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.measuring import meter
from bench.processes.world import ALONE, World
from bench.settings.errors import UserError
from bench.settings.schema import Train
from bench.training import beside, loss

FEW = 2  # examples in the largest trial


def check(
    model: nn.Module, batch: Callable[[int], dict[str, Tensor]], most: int, setting: str,
    train: Train, world: World = ALONE,
) -> None:  # fmt: skip
    """Raise UserError if they alone exceed the machine's memory; leaves the model unchanged.

    batch: returns that many examples; most: how many pass at once, over all processes, as `setting`
    says. The memory per example is measured with one and two examples. It is a lower bound on a
    step's memory: gradients, states and temporary tensors come on top, so a batch that passes may
    still be too large. A compiled model may keep less and is not tried.
    """
    here = -(-most // world.size)
    if train.compile or here <= FEW:
        return
    try:
        each = kept(model, batch(FEW), train) - kept(model, batch(FEW - 1), train)
    except Exception:  # the model may raise anything; the first step reports it
        return
    there = meter.total(train.device)
    if each * here > there:
        raise UserError(
            f"{setting}: a forward pass keeps at least {each / 1e6:,.1f} MB an example, "
            f"{each * here / 1e9:,.0f} GB in all; {there / 1e9:,.0f} GB are there, in which "
            f"fewer than {world.size * there // each + 1} fit"
        )


def kept(model: nn.Module, batch: dict[str, Tensor], train: Train) -> int:
    """Bytes that a forward pass keeps for the backward pass, except parameters."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage  # kept alive, so that its address is not reused
        return tensor

    batch = {key: value.to(train.device) for key, value in batch.items()}
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with beside.forward(model, train) as forward, hooks:
        loss.of(forward, batch)
    return sum(storage.nbytes() for storage in found.values())

"""Gradients of all parameters together: their norm, clipping, and which of them are not finite."""

import torch
from torch import Tensor, nn


def norm(parameters: list[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients; sparse ones are coalesced, so that a token counts once."""
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()  # a token's places in the batch become one row
    return nn.utils.get_total_norm([numbers(p.grad) for p in parameters if p.grad is not None])


def numbers(grad: Tensor) -> Tensor:
    """The gradient; of a sparse one its rows, as torch's norm takes no other."""
    return grad.values() if grad.is_sparse else grad


def not_finite(model: nn.Module) -> str:
    """Names the parameters whose gradient has a NaN or an infinity, the nearest to the loss first.

    A backward pass carries them from where they arise towards the input. Look before clipping,
    which spreads them to all.
    """
    broken = [
        name
        for name, p in model.named_parameters()
        if p.grad is not None and not torch.isfinite(numbers(p.grad)).all()
    ]
    more = f" and {len(broken) - 1} before it" if len(broken) > 1 else ""
    return f"not finite in {broken[-1]}{more}" if broken else "each is finite by itself"

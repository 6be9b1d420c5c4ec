"""Muon's formula on strips of tensors, for the settings of a param group."""

from typing import Any

import torch
from torch import Tensor

from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.orthogonalize.workspace import Workspace


def polar(
    X_bnm: Tensor, group: dict[str, Any], orthogonalizer: Orthogonalizer, workspace: Workspace
) -> Tensor:
    """Orthogonalize a stack of directions; X is overwritten."""
    if group["sign"]:
        X_bnm.sign_()
    return orthogonalizer(X_bnm, orthogonalizer.iteration_dtype(X_bnm.device.type), workspace)


def accumulate_into(target: Tensor, buffer: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
    """Add the gradient to the momentum buffer and write the step's direction to `target`.

    Computed in the wider of the two dtypes. The sums of classical momentum can leave the range of
    fp16; an fp16 buffer is clamped to that range.
    """
    wide = torch.promote_types(buffer.dtype, grad.dtype)
    summed = group["momentum_form"] == "classical" and wide == torch.float16
    wide = torch.float32 if summed else wide
    moment, grad = buffer.to(wide), grad.to(wide)  # no copies if they have that dtype
    momentum, start = group["momentum"], grad
    if group["momentum_form"] == "ema":
        moment.lerp_(grad, 1 - momentum)
    else:
        moment.mul_(momentum).add_(grad)
        start = grad / (1 - momentum) if group["nesterov"] else grad
    if summed:
        top = torch.finfo(torch.float16).max
        buffer.copy_(moment.clamp(-top, top))
    elif moment is not buffer:
        buffer.copy_(moment)
    if not group["nesterov"]:
        target.copy_(moment)
    elif target.dtype == wide:
        torch.lerp(start, moment, momentum, out=target)
    else:
        target.copy_(torch.lerp(start, moment, momentum))


def apply(target: Tensor, update: Tensor, scale: float, group: dict[str, Any]) -> None:
    """target <- (1 - lr weight_decay) target - lr scale update, decay masked where cautious."""
    lr, decay = group["lr"], group["lr"] * group["weight_decay"]
    if group["cautious"]:
        target.sub_(target * (update * target >= 0) * decay)
    elif group["weight_decay"]:
        target.mul_(1 - decay)
    if isinstance(lr, Tensor):
        target.sub_(update * (lr * scale))
    else:
        target.add_(update, alpha=-lr * scale)

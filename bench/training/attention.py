"""The largest attention logit of each layer, read while the model runs forward once.

A logit is what the softmax of attention gets: q·k times the scale, plus a bias if the model has one
(ALiBi, relative positions). Muon lets it grow further than AdamW in some runs, which is why
MuonClip bounds it (Kimi K2, arXiv 2507.20534).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.processes.world import World
from optimizers.structure.calls import BY_A_NUMBER, tensors_in

SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax}
PRODUCTS = {
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum),
    *(torch.baddbmm, Tensor.baddbmm),
}
# What happens to the logits before their softmax: scale, bias, mask, bound, type.
BETWEEN = BY_A_NUMBER | {
    *(torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_, torch.where, Tensor.where),
    *(torch.clamp, Tensor.clamp, torch.maximum, torch.max, Tensor.max, torch.tanh, Tensor.tanh),
    *(Tensor.to, Tensor.type, Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.contiguous),
    *(Tensor.view, Tensor.reshape, torch.reshape, Tensor.add_, Tensor.__iadd__),
}


@torch.no_grad()
def largest(forward: Callable[[], Any], world: World) -> list[float] | None:
    """The largest logit over heads, queries and allowed keys, by call of attention in their order.

    forward: runs the model on this process's part of a batch; all processes take part. None if no
    attention is seen, or one that cannot be read: torch's nn.MultiheadAttention, shards, kernels
    other than torch's.
    """
    with torch.compiler.set_stance("force_eager"), Logits() as seen:
        forward()
    every = world.gathered([] if seen.unread else [x.item() for x in seen.largest])
    return torch.tensor(every).amax(0).tolist() if all(every) else None


class Logits(TorchFunctionMode):
    """Sees the calls of attention inside its `with`; largest: of each one the largest logit."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: list[Tensor] = []
        self.unread = False  # whether there was a call that could not be read

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            self._note(lambda: of_call(*args, **kwargs), args[:1])
        elif function is F.multi_head_attention_forward:
            self.unread = True
        elif function in SOFTMAX:
            given = next(tensors_in(args, kwargs))
            if hasattr(given, "logits"):
                self._note(given.amax, [given])
        result = function(*args, **kwargs)
        if isinstance(result, Tensor) and are_logits(function, result, args, kwargs):
            setattr(result, "logits", True)  # noqa: B010
        return result

    def _note(self, read: Callable[[], Tensor], given: Any) -> None:
        if all(type(x) is Tensor and not x.is_nested for x in given):
            self.largest.append(read().float())
        else:
            self.unread = True


def are_logits(function: Callable, result: Tensor, args: tuple, kwargs: dict) -> bool:
    """Whether a call's result is q kᵀ, or comes from it element by element.

    A product with a weight is none: activations have a batch's dimension beside their own two.
    """
    given = list(tensors_in(args, kwargs))
    if function in PRODUCTS:
        return all(x.ndim >= 3 for x in given) and result.ndim >= 3
    carried = (x for x in given if hasattr(x, "logits"))
    return function in BETWEEN and any(x.shape[-2:] == result.shape[-2:] for x in carried)


def of_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The largest logit of a call of scaled_dot_product_attention, with the same arguments.

    One example at a time, so that all logits are never in memory together.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    query, key = (x.expand(*lead, *x.shape[-2:]) for x in (query, key))
    shape = *lead, query.shape[-2], key.shape[-2]
    allowed = query.new_ones(shape[-2:], dtype=torch.bool)
    mask = allowed.tril() if is_causal else allowed if attn_mask is None else attn_mask
    found = [
        masked(scale * q.float() @ k.float().mT, m).amax()
        for q, k, m in zip(*map(examples, (query, key, mask.expand(shape))), strict=True)
    ]
    return torch.stack(found).amax()


def examples(x: Tensor) -> tuple[Tensor, ...]:
    return x.unbind() if x.ndim > 2 else (x,)


def masked(logits: Tensor, mask: Tensor) -> Tensor:
    """The logits of allowed keys, others at -inf; a mask of numbers is added, as by torch."""
    if mask.dtype == torch.bool:
        return logits.masked_fill(~mask, -math.inf)
    return logits + mask

"""Which calls of torch are activations, scales or look-ups, for the probe."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# exp is one too: models divide it by its sum later, or subtract the sum's logarithm before.
SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax, torch.exp, Tensor.exp}
PASS_ON = {F.layer_norm, F.rms_norm, F.normalize, torch.clamp, Tensor.clamp}  # return the input
GATES = {
    *(F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.silu, F.gelu, F.mish, F.hardswish),
    *(F.relu, torch.relu, Tensor.relu, F.relu6, F.tanh, torch.tanh, Tensor.tanh),
}
TIMES = {torch.mul, Tensor.mul, torch.multiply, Tensor.multiply, Tensor.__rmul__, Tensor.mul_}
SCALES = TIMES | {torch.div, Tensor.div, Tensor.__truediv__, Tensor.true_divide, Tensor.div_}
BY_A_NUMBER = SCALES | {torch.add, Tensor.add, Tensor.__radd__, torch.sub, Tensor.sub}
LOOKUPS = {F.embedding: 1, F.embedding_bag: 1, Tensor.__getitem__: 0, torch.index_select: 0}


def tensors_in(args: tuple, kwargs: dict) -> Iterator[Tensor]:
    """The tensors among the arguments of a call, including those in lists."""
    for x in (*args, *kwargs.values()):
        for y in x if isinstance(x, list | tuple) else (x,):
            if isinstance(y, Tensor):
                yield y


def as_gate(x: Tensor) -> Tensor:
    """A copy of an activated map, marked as a gate."""
    result = x.clone()
    setattr(result, "gate", True)  # noqa: B010
    return result


def logits_of(output: Any) -> list[Tensor]:
    """The tensors that a model returns; if its outputs have names, its logits if any.

    Names are those of a mapping, of a named tuple, or of an object's attributes.
    """
    if hasattr(output, "_asdict"):
        output = output._asdict()
    elif not isinstance(output, dict | list | tuple | Tensor):
        logits = {"logits": output.logits} if hasattr(output, "logits") else {}  # also for slots
        output = getattr(output, "__dict__", {}) | logits
    if isinstance(output, dict):
        named = [k for k in output if k.endswith("logits") and "router" not in k]
        output = [output[k] for k in named] if named else list(output.values())
    given = output if isinstance(output, list | tuple) else [output]
    return [x for x in given if isinstance(x, Tensor) and x.ndim > 1]


def keeps_rows(known: Tensor, other: Any, function: Callable) -> bool:
    """Whether rows stay distinguishable: with a number, with one number per head, with a bias."""
    if not isinstance(other, Tensor) or other.numel() == 1:
        return True
    if torch.broadcast_shapes(known.shape, other.shape) != known.shape:
        return False
    return other.shape[-1] == 1 if function in SCALES else isinstance(other, nn.Parameter)

"""Which rows of which weight does attention receive as q, k, v, and of which head? Read, not named.

One forward pass over a single token in which the outputs of every linear map are replaced by
numbers, each output by one of its own. Whatever the model does to them on the way (split,
reshape, transpose, interleave) can then be read off the q, k and v that
`scaled_dot_product_attention` receives. Rotary embeddings leave the first position as it is, and
normalisations are made to pass their input on.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

EXACT = 2**24  # whole numbers that fp32 tells apart


@dataclass
class Attention:
    """One call of attention: by weight (its id) the rows of each (part, head) it gives.

    outputs: by weight the columns of each head, for the linear map that follows.
    """

    rows: dict[int, dict[tuple[str, int], list[int]]] = field(default_factory=dict)
    outputs: dict[int, dict[int, list[int]]] = field(default_factory=dict)


def probe(model: nn.Module, forward: Callable[[], Any]) -> list[Attention]:
    """Run `forward` and read every attention in it; weights and random state stay as they are."""
    watch = _Watch({id(p) for p in model.parameters() if p.ndim == 2})
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _norms_pass_on(model), watch:
            forward()
    finally:
        model.train(training)
    return watch.found


def one_token(model: nn.Module) -> Callable[[], Any] | None:
    """A forward pass of a transformers model over its smallest input; None for other models."""
    config, name = getattr(model, "config", None), getattr(model, "main_input_name", None)
    device = next(model.parameters()).device
    if name == "input_ids":
        inputs = torch.zeros(1, 1, dtype=torch.long, device=device)
    elif name == "pixel_values" and isinstance(getattr(config, "image_size", None), int):
        size = config.image_size
        inputs = torch.zeros(1, config.num_channels, size, size, device=device)
    else:
        return None
    return lambda: model(**{name: inputs})


@contextmanager
def _norms_pass_on(model: nn.Module):
    """Inside, every normalisation gives back what it got."""
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    hooks = [m.register_forward_hook(lambda module, inputs, output: inputs[0]) for m in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Watch(TorchFunctionMode):
    """Numbers what linear maps give and reads what attention takes."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights = weights
        self.given: list[tuple[int, int]] = [(0, 0)]  # (weight, row) by number
        self.heads: list[tuple[Attention, int]] = []  # by -number - 1
        self.found: list[Attention] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self._attention(function(*args, **kwargs), *args[:3], **kwargs)
        if function is F.multi_head_attention_forward:
            self._torch_attention(*args, **kwargs)
        result = function(*args, **kwargs)
        if function is F.linear:
            x, weight = args[0], args[1]
        elif function is torch.addmm:  # transformers' Conv1D
            x, weight = args[1], args[2]
        else:
            return result
        if id(weight) not in self.weights:
            return result
        self._output(x, id(weight))
        return self._numbered(result, id(weight))

    def _numbered(self, result: Tensor, weight: int) -> Tensor:
        first, count = len(self.given), result.shape[-1]
        if first + count >= EXACT or not result.is_floating_point():
            return result
        self.given += [(weight, row) for row in range(count)]
        numbers = torch.arange(first, first + count, dtype=result.dtype, device=result.device)
        return numbers.expand(result.shape).clone()

    def _attention(self, result: Tensor, query=None, key=None, value=None, **kwargs) -> Tensor:
        """q, k, v: (batch, heads, tokens, width). Gives a number of its own for each head."""
        call = Attention()
        for part, tensor in zip("qkv", (query, key, value), strict=True):
            sources = [self._sources(head) for head in tensor[0, :, 0, :]]
            distinct = list(dict.fromkeys(map(tuple, filter(None, sources))))
            for head, rows in enumerate(distinct):  # grouped queries: k and v come repeated
                for weight, row in rows:
                    call.rows.setdefault(weight, {}).setdefault((part, head), []).append(row)
        self.found.append(call)
        heads = result.shape[1]
        first = len(self.heads) + 1
        self.heads += [(call, head) for head in range(heads)]
        numbers = -torch.arange(first, first + heads, dtype=result.dtype, device=result.device)
        return numbers.view(1, heads, 1, 1).expand(result.shape).clone()

    def _sources(self, values: Tensor) -> list[tuple[int, int]] | None:
        """(weight, row) of each entry of one head; None where they are not numbers we gave.

        Some models scale q before attention by 1 / sqrt(width).
        """
        for scale in (1.0, len(values) ** 0.5):
            numbers = values.double() * scale
            whole = numbers.round()
            inside = (whole >= 1).all() and (whole < len(self.given)).all()
            if inside and torch.allclose(numbers, whole, rtol=1e-6, atol=0):
                return [self.given[int(number)] for number in whole]
        return None

    def _output(self, x: Tensor, weight: int) -> None:
        """Whether a linear map's input comes straight from attention, and from which heads."""
        values = x.reshape(-1, x.shape[-1])[0].tolist()
        numbers = [int(-v) for v in values if v < 0 and v == int(v) and -v <= len(self.heads)]
        if len(numbers) < len(values):
            return
        columns: dict[int, list[int]] = {}
        for column, number in enumerate(numbers):
            call, head = self.heads[number - 1]
            columns.setdefault(head, []).append(column)
        call.outputs[weight] = columns

    def _torch_attention(self, *args, **kwargs) -> None:
        """torch's own attention states its layout: q, k, v in thirds of in_proj_weight."""
        width, heads, weight = args[3], args[4], args[5]
        if weight is None or id(weight) not in self.weights:
            return
        size, call = width // heads, Attention()
        call.rows[id(weight)] = {
            (part, head): list(range(i * width + head * size, i * width + (head + 1) * size))
            for i, part in enumerate("qkv")
            for head in range(heads)
        }
        output = args[11] if len(args) > 11 else kwargs.get("out_proj_weight")
        if output is not None:
            call.outputs[id(output)] = {
                head: list(range(head * size, (head + 1) * size)) for head in range(heads)
            }
        self.found.append(call)

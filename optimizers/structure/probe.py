"""What does each weight do? Read off one forward pass, not off names.

The outputs of every linear map are replaced by numbers, each output by one of its own. Whatever
the model does to them on the way (split, reshape, transpose, interleave) can then be read off the
q, k and v that attention receives, be it `scaled_dot_product_attention` or products with a softmax
between them. Rotary embeddings leave the first position as it is, and normalisations are made to
pass their input on. Products also show how a weight is stored: whether (in, out) or (out, in).

The numbers rise by random steps, so that a sum of two (an adapter's output added to its base's)
or any other arithmetic does not give a number of something else.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from optimizers.structure.products import einsum_as_product, factors

EXACT = 2**24  # whole numbers that fp32 tells apart
STEP = 8  # numbers rise by less than this
NORM = re.compile("Norm(?!ed|Linear|Conv)")  # in the name of a module that normalises

SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
PASS_ON = {F.layer_norm, F.rms_norm, torch.clamp, Tensor.clamp}  # what they get

Sources = list[tuple[int, int]]  # (weight's id, row) of every entry of a head


@dataclass
class Attention:
    """One call of attention: by weight (its id) the rows of each (part, head) it gives.

    outputs: by weight the columns of each head, for the linear map that follows.
    """

    rows: dict[int, dict[tuple[str, int], list[int]]] = field(default_factory=dict)
    outputs: dict[int, dict[int, list[int]]] = field(default_factory=dict)


@dataclass
class Seen:
    """What a forward pass showed: its attentions, and how products read weights (by their ids).

    layouts: names of views.LAYOUTS, both where a weight is read in two ways; parts: weights of
    which a product read only some rows.
    """

    attentions: list[Attention] = field(default_factory=list)
    layouts: dict[int, set[str]] = field(default_factory=dict)
    parts: set[int] = field(default_factory=set)


def probe(model: nn.Module, forward: Callable[[], Any]) -> Seen:
    """Run `forward` and read what it does; weights and random state stay as they are."""
    watch = _Watch(model)
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), _first_position_unchanged(model), _norms_pass_on(model), watch:
            forward()
    finally:
        for module, mode in training.items():
            module.training = mode
    return watch.seen


def one_token(model: nn.Module) -> Callable[[], Any] | None:
    """A forward pass over the smallest input that a model takes; None where that is not known.

    Known are transformers' models, and others whose `forward` takes `input_ids`.
    """
    config = getattr(model, "config", None)
    wanted = inspect.signature(model.forward).parameters
    name = getattr(model, "main_input_name", next(iter(wanted), None))
    device = next((p.device for p in model.parameters()), None)
    if name == "input_ids":
        inputs = {name: torch.zeros(1, 1, dtype=torch.long, device=device)}
        if getattr(config, "is_encoder_decoder", False):
            inputs["decoder_input_ids"] = inputs[name]
        if "labels" in wanted and wanted["labels"].default is inspect.Parameter.empty:
            inputs["labels"] = inputs[name]
    elif name == "pixel_values" and config is not None and getattr(config, "image_size", None):
        size = config.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shape = (1, config.num_channels, height, width)
        inputs = {name: torch.zeros(shape, device=device, dtype=next(model.parameters()).dtype)}
    else:
        return None
    return lambda: model(**inputs)


@contextmanager
def _norms_pass_on(model: nn.Module):
    """Inside, every normalisation gives back what it got."""

    def what_it_got(module, args, kwargs, output):
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        same = isinstance(output, Tensor) and given is not None and given.shape == output.shape
        return given if same else output

    norms = [m for m in model.modules() if NORM.search(type(m).__name__)]
    hooks = [m.register_forward_hook(what_it_got, with_kwargs=True) for m in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _first_position_unchanged(model: nn.Module):
    """Inside, rotary embeddings do not scale (YaRN's do, arXiv 2309.00071)."""
    scaled: list[Any] = [
        m for m in model.modules() if isinstance(getattr(m, "attention_scaling", 0), float)
    ]
    before = [m.attention_scaling for m in scaled]
    for module in scaled:
        module.attention_scaling = 1.0
    try:
        yield
    finally:
        for module, value in zip(scaled, before, strict=True):
            module.attention_scaling = value


class _Watch(TorchFunctionMode):
    """Numbers what linear maps give and reads what attention takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.seen = Seen()
        self.parameters: dict[int, list[Tensor]] = {}  # by the storage they lie in
        for p in model.parameters():
            if p.ndim in (2, 3) and not p.is_meta:
                self.parameters.setdefault(p.untyped_storage().data_ptr(), []).append(p)
        self.random = torch.Generator().manual_seed(0)
        self.last = 0
        self.given: dict[int, tuple[int, int]] = {}  # (weight, row) by number
        self.heads: list[tuple[Attention, int]] = []  # by -number - 1
        self.scores: dict[str, list[Sources]] | None = None  # q and k of a product, until its v
        self.softmax = False  # since that product

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            q, k, v = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)][:3]
            parts = {"q": self._heads(q), "k": self._heads(k), "v": self._heads(v)}
            return self._attended(q.new_empty(*q.shape[:-1], v.shape[-1]), parts)
        if function is F.multi_head_attention_forward:
            self._torch_attention(args, kwargs)
        if function in PASS_ON and args[0].is_floating_point():
            return args[0]
        if function in SOFTMAX:
            self.softmax = True
        if function is torch.einsum and isinstance(args[0], str) and len(args) == 3:
            found = einsum_as_product(*args)
            if found is not None:
                left, right, back = found
                return back(self._product(left, right, lambda: left @ right))
        found = factors(function, args, kwargs)
        if found is None:
            return function(*args, **kwargs)
        return self._product(*found, lambda: function(*args, **kwargs))

    def _product(self, left: Tensor, right: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """What stands for left @ right: numbers where a weight is in it, or attention's heads."""
        found = self._weight(right)
        if found is None:
            other = self._weight(left.mT)  # weight @ x
            if other is not None:
                self._note(*other[:2])
                return compute()
            return self._attention_by_hand(left, right, compute())
        weight, layout, first = found
        self._note(weight, layout)
        if weight.ndim == 3:
            return compute()
        if weight.numel() > right.shape[-1] * right.shape[-2]:
            self.seen.parts.add(id(weight))
        self._output(left, id(weight))
        result = left.new_empty(*left.shape[:-1], right.shape[-1])
        return self._numbered(result, id(weight), first)

    def _weight(self, factor: Tensor) -> tuple[Tensor, str, int] | None:
        """(parameter, layout, first row) whose storage a factor (..., in, out) shows."""
        for weight in self.parameters.get(factor.untyped_storage().data_ptr(), ()):
            offset = factor.storage_offset() - weight.storage_offset()
            if not 0 <= offset < weight.numel():
                continue
            stored, shown = weight.stride()[-2:], factor.stride()[-2:]
            batch = weight.ndim == 3
            if shown == stored[::-1] and factor.shape[-2] == weight.shape[-1]:
                return weight, "batch" if batch else "matrix", offset // stored[0]
            if shown == stored and factor.shape[-2] == weight.shape[-2]:
                return weight, "batch_transposed" if batch else "transposed", offset // stored[1]
        return None

    def _note(self, weight: Tensor, layout: str) -> None:
        self.seen.layouts.setdefault(id(weight), set()).add(layout)

    def _numbered(self, result: Tensor, weight: int, first: int) -> Tensor:
        count = result.shape[-1]
        steps = torch.randint(1, STEP, (count,), generator=self.random).cumsum(0)
        if self.last + STEP * count >= EXACT:  # the oldest are forgotten
            self.given, self.last = {}, 0
        numbers = self.last + steps
        self.last = int(numbers[-1])
        rows = range(first, first + count)
        self.given.update(zip(numbers.tolist(), ((weight, row) for row in rows), strict=True))
        return numbers.to(result.device, torch.float32).expand(result.shape).clone()

    def _heads(self, tensor: Tensor) -> list[Sources] | None:
        """Where each head of a q, k or v (..., heads, tokens, width) comes from.

        None where it is not made of numbers we gave. Grouped queries: heads of k and v that are
        repeated count once.
        """
        if tensor.ndim < 3 or not tensor.is_floating_point() or 0 in tensor.shape:
            return None
        first_tokens = tensor.reshape(-1, *tensor.shape[-3:])[0, :, 0, :].double()
        sources = [self._sources(values) for values in first_tokens]
        known = [tuple(head) for head in sources if head is not None]
        return list(map(list, dict.fromkeys(known))) if len(known) == len(sources) else None

    def _sources(self, values: Tensor) -> Sources | None:
        """Some models scale q, or q and k alike, before they meet."""
        width = len(values)
        for scale in (1.0, width**0.5, width**0.25):
            numbers = (values * scale).round()
            if torch.allclose(values * scale, numbers, rtol=3e-7, atol=1e-4):
                found = [self.given[n] for n in numbers.tolist() if n in self.given]
                if len(found) == width:
                    return found
        return None

    def _attended(self, result: Tensor, parts: Mapping[str, list[Sources] | None]) -> Tensor:
        """Note a call of attention; gives a number of its own for each head of its result."""
        call = Attention()
        for part, heads in parts.items():
            for head, sources in enumerate(heads or []):
                for weight, row in sources:
                    call.rows.setdefault(weight, {}).setdefault((part, head), []).append(row)
        self.seen.attentions.append(call)
        count = result.shape[-3]
        first = len(self.heads) + 1
        self.heads += [(call, head) for head in range(count)]
        numbers = -torch.arange(first, first + count, dtype=result.dtype, device=result.device)
        return numbers.view(count, 1, 1).expand(result.shape).clone()

    def _attention_by_hand(self, left: Tensor, right: Tensor, result: Tensor) -> Tensor:
        """q kᵀ, then a softmax, then its product with v."""
        if self.scores is not None and self.softmax:
            v = self._heads(right)
            if v is not None:
                parts, self.scores = self.scores | {"v": v}, None
                return self._attended(result, parts)
        q = self._heads(left)
        k = self._heads(right.mT) if q is not None else None
        if q is not None and k is not None:
            self.scores, self.softmax = {"q": q, "k": k}, False
        return result

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

    def _torch_attention(self, args: tuple, kwargs: dict) -> None:
        """torch's own attention states its layout: q, k, v in thirds of in_proj_weight."""
        given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
        width, heads, output = (
            given[name] for name in ("embed_dim_to_check", "num_heads", "out_proj_weight")
        )
        size, call = width // heads, Attention()
        for i, part in enumerate("qkv"):
            weight, first = given["in_proj_weight"], i * width
            if given.get("use_separate_proj_weight"):
                weight, first = given[f"{part}_proj_weight"], 0
            self._note(weight, "matrix")
            for head in range(heads):
                start = first + head * size
                rows = call.rows.setdefault(id(weight), {})
                rows[part, head] = list(range(start, start + size))
        self._note(output, "matrix")
        columns = {head: list(range(head * size, (head + 1) * size)) for head in range(heads)}
        call.outputs[id(output)] = columns
        self.seen.attentions.append(call)

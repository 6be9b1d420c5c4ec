"""Watches one forward pass: numbers the outputs of linear maps, reads the inputs of attention."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from optimizers.structure import calls
from optimizers.structure.numbers import Heads, Numbers
from optimizers.structure.products import bound, einsum_as_product, einsum_operands, factors
from optimizers.structure.seen import Attention, Seen
from optimizers.structure.traces import Kept
from optimizers.structure.weights import Weights


class Scores(NamedTuple):
    """q and k of a product; every tensor computed from it carries them until the product with v."""

    q: Heads
    k: Heads
    softmax: bool = False


class Watch(TorchFunctionMode):
    """Numbers the outputs of linear maps and reads the inputs of attention."""

    def __init__(self, model: nn.Module, kept: Kept) -> None:
        super().__init__()
        self.seen, self.kept = Seen(), kept
        self.weights = Weights(model)
        self.numbers = Numbers()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.kept.before(function, args, kwargs)
        result = self._instead(function, args, kwargs)
        if result is None:
            result = function(*args, **kwargs)
        if isinstance(result, Tensor) or type(result) in (tuple, list):
            used = (id(x) for x in calls.tensors_in(args, kwargs) if isinstance(x, nn.Parameter))
            self.seen.used.update(used)
        if isinstance(result, Tensor) and not hasattr(result, "scores"):
            carried = (getattr(x, "scores", None) for x in calls.tensors_in(args, kwargs))
            scores = next((x for x in carried if x is not None), None)
            if scores is not None and not self.numbers.is_head(result):
                softmax = scores.softmax or function in calls.SOFTMAX
                result.scores = scores._replace(softmax=softmax)
        return result

    def _instead(self, function: Callable, args: tuple, kwargs: dict) -> Tensor | None:
        """The replacement for the result of a call; None to compute the result."""
        if function is F.scaled_dot_product_attention:
            given = bound(("query", "key", "value"), args, kwargs)
            parts = dict(zip("qkv", map(self.numbers.heads_in, given), strict=True))
            q, _, v = given
            return self._attended(q.new_zeros(*q.shape[:-1], v.shape[-1]), parts)
        if function is F.multi_head_attention_forward:
            self._torch_attention(args, kwargs)
        elif function in calls.LOOKUPS:
            self._lookup(args, kwargs, calls.LOOKUPS[function])
        elif function in calls.PASS_ON:
            (given,) = bound(("input",), args, kwargs)
            return given if given is not None and given.is_floating_point() else None
        elif function in calls.GATES or function in calls.BY_A_NUMBER:
            return self._elementwise(function, args, kwargs)
        elif function is F.glu:
            self._glu(*bound(("input", "dim"), args, kwargs))
        elif function is torch.einsum:
            operands = einsum_operands(args, kwargs)
            found = einsum_as_product(*operands) if operands else None
            if operands and found:
                left, right, back = found
                scores = getattr(operands[1], "scores", None)
                product = self._product(left, right, lambda: left @ right, scores)
                result = back(product)
                result.scores = getattr(product, "scores", None)
                return result
        else:
            found = factors(function, args, kwargs)
            if found is not None:
                scores = getattr(found[0], "scores", None)
                return self._product(*found, lambda: function(*args, **kwargs), scores)
        return None

    def given_by_model(self, output: Any) -> None:
        """Note the weights whose rows are the model's output."""
        inside = {weight for call in self.seen.attentions for weight in call.rows}
        inside |= {w for w, layouts in self.seen.layouts.items() if "batch" in str(layouts)}
        for tensor in calls.logits_of(output):
            if self.numbers.is_row(tensor):
                rows = self.numbers.rows(tensor.reshape(-1, tensor.shape[-1])[0])
                weights = {weight for weight, _ in rows or []}
                whole = [row for _, row in rows or []] == list(range(tensor.shape[-1]))
                if whole and len(weights) == 1 and not weights & inside:
                    self.seen.outputs |= weights

    # products ---------------------------------------------------------------------------------

    def _product(
        self, left: Tensor, right: Tensor, compute: Callable[[], Tensor], scores: Scores | None
    ) -> Tensor:
        """The replacement for left @ right: numbers if one is a weight, or attention's heads."""
        piece = self.weights.piece(right)
        if piece is None:
            other = self.weights.piece(left.mT)  # weight @ x
            if other is not None:
                self._note(id(other.weight), other.layout, other.parts)
                return compute()
            return self._attention_by_hand(left, right, compute(), scores)
        weight = id(piece.weight)
        self._note(weight, piece.layout, piece.parts)
        if not piece.rows or (piece.weight.ndim == 3 and left.dtype != torch.float32):
            return compute()
        if right.ndim == 2 and not piece.parts and not piece.layout.startswith("batch"):
            self._output(left, weight)
        shape = (*left.shape[:-1], right.shape[-1])
        result = left.new_empty(shape) if right.ndim == 2 else compute()
        numbers = self.numbers.of_rows(weight, piece.rows)
        if len(piece.rows) > result.shape[-1]:  # each entry of a batch has its own rows
            numbers = numbers.view(-1, 1, result.shape[-1])
        return numbers.to(result.device).expand(result.shape).clone()

    def _note(self, weight: int, layout: str, parts: tuple = ()) -> None:
        if parts:
            self.seen.parts.setdefault(weight, set()).update((layout, *part) for part in parts)
        else:
            self.seen.layouts.setdefault(weight, set()).add(layout)

    def _lookup(self, args: tuple, kwargs: dict, place: int) -> None:
        table = args[place] if len(args) > place else kwargs.get("weight" if place else "input")
        index = next((x for x in calls.tensors_in(args, kwargs) if not x.is_floating_point()), None)
        if index is not None and index.dtype != torch.bool and self.weights.is_whole(table):
            self.seen.tables.add(id(table))

    # attention --------------------------------------------------------------------------------

    def _attended(self, result: Tensor, parts: dict[str, Heads | None]) -> Tensor:
        """Note a call of attention; returns a result with a different number for each head."""
        call = Attention()
        for part, heads in parts.items():
            for head, sources in enumerate(heads.sources if heads else []):
                for weight, row in sources:
                    call.rows.setdefault(weight, {}).setdefault((part, head), []).append(row)
        self.seen.attentions.append(call)
        q, index = parts["q"], torch.arange(result.shape[-3])
        if q is not None and not q.sources:
            return result
        if q is not None and q.index.shape == result.shape[-2 - q.index.ndim : -2]:
            index = q.index
        numbers = self.numbers.of_heads(call, int(index.max()) + 1)[index].to(result.device)
        return numbers[..., None, None].expand(result.shape).clone()

    def _attention_by_hand(
        self, left: Tensor, right: Tensor, result: Tensor, scores: Scores | None
    ) -> Tensor:
        """Attention written out: q kᵀ, then a softmax, then the product with v."""
        if scores is not None and scores.softmax:
            v = self.numbers.heads_in(right)
            return self._attended(result, {"q": scores.q, "k": scores.k, "v": v})
        q = self.numbers.heads_in(left)
        k = self.numbers.heads_in(right.mT) if q is not None else None
        if q is not None and k is not None:
            setattr(result, "scores", Scores(q, k))  # noqa: B010
        return result

    def _output(self, x: Tensor, weight: int) -> None:
        """Note if a linear map's input comes straight from attention, and from which heads."""
        found = self.numbers.is_head(x) and self.numbers.head_of(x.reshape(-1, x.shape[-1])[0])
        if not found:
            return
        columns: dict[tuple[int, int], list[int]] = {}
        for column, (call, head) in enumerate(found):  # some models call attention once per head
            columns.setdefault((id(call), head), []).append(column)
        found[0][0].outputs[weight] = dict(enumerate(columns.values()))

    def _torch_attention(self, args: tuple, kwargs: dict) -> None:
        """torch's own attention has a known layout: q, k, v are thirds of in_proj_weight."""
        given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
        width, heads, output = (
            given[name] for name in ("embed_dim_to_check", "num_heads", "out_proj_weight")
        )
        size, call = width // heads, Attention()
        for i, part in enumerate("qkv"):
            weight, first = given["in_proj_weight"], i * width
            if given.get("use_separate_proj_weight"):
                weight, first = given[f"{part}_proj_weight"], 0
            self._note(id(weight), "matrix")
            for head in range(heads):
                start = first + head * size
                rows = call.rows.setdefault(id(weight), {})
                rows[part, head] = list(range(start, start + size))
        self._note(id(output), "matrix")
        columns = {head: list(range(head * size, (head + 1) * size)) for head in range(heads)}
        call.outputs[id(output)] = columns
        self.seen.attentions.append(call)

    # gates ------------------------------------------------------------------------------------

    def _elementwise(self, function: Callable, args: tuple, kwargs: dict) -> Tensor | None:
        """Pass numbers through activations and scales unchanged, and note gates."""
        known = [x for x in calls.tensors_in(args, kwargs) if self._is_known(x)]
        others = [x for x in (*args, *kwargs.values()) if not any(x is y for y in known)]
        if function in calls.GATES:
            if len(known) != 1 or not self.numbers.is_row(known[0]):
                return None
            return calls.as_gate(known[0])
        if len(known) == 1 and all(calls.keeps_rows(known[0], x, function) for x in others):
            return known[0] if function.__name__.endswith("_") else known[0].clone()
        if len(known) == 2 and function in calls.TIMES:
            first, second = known if hasattr(known[0], "gate") else reversed(known)
            if hasattr(first, "gate"):
                return self._gated(first, second)
        return None

    def _is_known(self, x: Tensor) -> bool:
        return self.numbers.is_row(x) or self.numbers.is_head(x)

    def _gated(self, gate: Tensor, other: Tensor) -> Tensor | None:
        """An activated map times an attention's result, times its other half or times itself."""
        if self.numbers.is_head(other):
            heads = self.numbers.head_of(other[0])
            rows = self.numbers.rows(gate.expand_as(other)[0])
            pairs = zip(heads, rows, strict=True) if heads and rows else ()
            for (call, head), (weight, row) in dict.fromkeys(pairs):
                if weight in call.rows:
                    call.rows[weight].setdefault(("gate", head), []).append(row)
            return other.clone()
        if gate.shape != other.shape:
            return None
        if torch.equal(gate, other):  # x * sigmoid(x)
            return calls.as_gate(gate)
        self._halves(gate.reshape(-1, gate.shape[-1])[0], other.reshape(-1, other.shape[-1])[0])
        return None

    def _glu(self, x: Tensor, dim: int | None) -> None:
        if dim in (None, -1, x.ndim - 1) and self.numbers.is_row(x):
            value, gate = x.reshape(-1, x.shape[-1])[0].chunk(2)
            self._halves(gate, value)

    def _halves(self, gate: Tensor, value: Tensor) -> None:
        gates, values = self.numbers.rows(gate), self.numbers.rows(value)
        weights = {weight for weight, _ in (gates or []) + (values or [])}
        if gates and values and len(weights) == 1:
            halves = tuple(row for _, row in gates), tuple(row for _, row in values)
            self.seen.gated.setdefault(weights.pop(), set()).add(halves)

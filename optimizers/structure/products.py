"""Which calls of torch are matrix products, and their factors, for the probe."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# torch's builtins have no signature to bind, so this lists their parameters by position.
FACTORS = {
    F.linear: ("input", "weight"),
    torch.matmul: ("input", "other"),
    Tensor.matmul: ("self", "other"),
    torch.mm: ("input", "mat2"),
    Tensor.mm: ("self", "mat2"),
    torch.bmm: ("input", "mat2"),
    Tensor.bmm: ("self", "mat2"),
    getattr(torch, "_grouped_mm", None): ("self", "mat2"),
    getattr(F, "grouped_mm", None): ("mat_a", "mat_b"),
}
SUMMANDS = {
    torch.addmm: ("input", "mat1", "mat2"),
    Tensor.addmm: ("self", "mat1", "mat2"),
    torch.baddbmm: ("input", "batch1", "batch2"),
    Tensor.baddbmm: ("self", "batch1", "batch2"),
}


def bound(names: tuple[str, ...], args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments with these names, passed by position or keyword; None for omitted ones."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


def factors(function: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor] | None:
    """The (..., n, k) and (..., k, m) that a call multiplies; None if it is no such product."""
    if function in FACTORS:
        left, right = bound(FACTORS[function], args, kwargs)
    elif function in SUMMANDS:  # torch.addmm: transformers' Conv1D
        _, left, right = bound(SUMMANDS[function], args, kwargs)
    else:
        return None
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return None
    if min(left.ndim, right.ndim) < 2:
        return None
    return (left, right.mT) if function is F.linear else (left, right)


def einsum_operands(args: tuple, kwargs: dict) -> tuple[str, Tensor, Tensor] | None:
    """The equation and the two tensors of an einsum of two, with a parameter second."""
    equation, *tensors = args or (kwargs.get("equation"),)
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = list(tensors[0])
    if not isinstance(equation, str) or len(tensors) != 2:
        return None
    left, right = tensors
    if isinstance(left, nn.Parameter) and "->" in equation:
        inputs, _, output = equation.partition("->")
        first, _, second = inputs.partition(",")
        return f"{second},{first}->{output}", right, left
    return equation, left, right


def einsum_as_product(equation: str, left: Tensor, right: Tensor):
    """An einsum of two tensors as (left, right, back); `back` maps their product to the einsum's
    order of dimensions. None if it is more than one batched matrix product.

    Several summed dimensions, or several that only the right tensor has, are folded into one.
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    a, _, b = inputs.partition(",")
    if arrow and "." in equation:
        return _with_ellipsis(a, b, output, left, right)
    shared = [i for i in a if i in b and i in output]
    summed = [i for i in a if i in b and i not in output]
    rows, columns = [i for i in a if i not in b], [i for i in b if i not in a]
    order = [*shared, *rows, *columns]
    once = len({*a}) == len(a) and len({*b}) == len(b)
    if not (arrow and once and summed and columns and sorted(order) == sorted(output)):
        return None
    right = right.permute([b.index(i) for i in (*shared, *summed, *columns)])
    own = right.shape[len(shared) + len(summed) :]
    inner = right.shape[len(shared) : -len(own)]
    try:
        right = right.view(*right.shape[: len(shared)], prod(inner), prod(own))
    except RuntimeError:  # dimensions not contiguous as one: make the outermost a batch
        b = "".join((*shared, *summed, *columns))
        return _batched(a, b, output, left, right)
    left = left.permute([a.index(i) for i in (*shared, *rows, *summed)]).flatten(-len(summed))
    for _ in rows[1:] if shared else ():
        right = right.unsqueeze(len(shared))

    def back(product: Tensor) -> Tensor:
        return product.unflatten(-1, own).permute([order.index(i) for i in output])

    return left, right, back


def _batched(a: str, b: str, output: str, left: Tensor, right: Tensor):
    """The same with one more batch dimension, the outermost in the right tensor's memory."""
    own = [i for i in range(len(b)) if not (b[i] in a and b[i] in output)]
    outermost = max(own, key=lambda i: right.stride(i))
    name, size = b[outermost], right.shape[outermost]
    if name in output:
        return einsum_as_product(f"{name}{a},{b}->{output}", left.expand(size, *left.shape), right)
    found = einsum_as_product(f"{a},{b}->{name}{output}", left, right)
    if found is None:
        return None
    left, right, back = found
    return left, right, lambda product: back(product).sum(0)


def _with_ellipsis(a: str, b: str, output: str, left: Tensor, right: Tensor):
    """The same if the left tensor has unnamed dimensions, as of a batch: "...d,de->...e"."""
    named = {*a, *b, *output} - {"."}
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in named]
    count = left.ndim - len(a.replace("...", ""))
    if "..." in b or "..." not in a or "..." not in output or not 0 <= count <= len(free):
        return None
    names = "".join(free[:count])
    a, output = a.replace("...", names), output.replace("...", names)
    return einsum_as_product(f"{a},{b}->{output}", left, right)

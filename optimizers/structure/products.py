"""Which calls of torch are matrix products, and of what: for the probe that watches them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

PRODUCTS = {
    *(torch.matmul, Tensor.matmul, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm),
    getattr(torch, "_grouped_mm", None),
    getattr(F, "grouped_mm", None),
}
SUMS_OF_PRODUCTS = {torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm}


def factors(function: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor] | None:
    """The (..., n, k) and (..., k, m) that a call multiplies; None where it is no such product."""
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    if function is F.linear:
        left, right = tensors[0], tensors[1].t()
    elif function in PRODUCTS:
        left, right = tensors[:2]
    elif function in SUMS_OF_PRODUCTS:  # torch.addmm: transformers' Conv1D
        left, right = tensors[1:3]
    else:
        return None
    return (left, right) if min(left.ndim, right.ndim) >= 2 else None


def einsum_as_product(equation: str, left: Tensor, right: Tensor):
    """An einsum of two tensors as (left, right, back), with `back` from their product to its own
    order of dimensions; None where it is more than one batched matrix product."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    a, _, b = inputs.partition(",")
    shared = [i for i in a if i in b and i in output]
    summed = [i for i in a if i in b and i not in output]
    rows, columns = [i for i in a if i not in b], [i for i in b if i not in a]
    order = [*shared, *rows, *columns]
    plain = arrow and "." not in equation and sorted(order) == sorted(output)
    if not plain or (len(summed), len(columns)) != (1, 1) or (shared and len(rows) != 1):
        return None
    left = left.permute([a.index(i) for i in (*shared, *rows, *summed)])
    right = right.permute([b.index(i) for i in (*shared, *summed, *columns)])
    return left, right, lambda product: product.permute([order.index(i) for i in output])

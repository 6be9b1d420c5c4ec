"""FLOPs of matrix products, counted by torch's own counter, and this machine's rate for them.

A count that may have missed something is None, never too low.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from bench.measuring import meter

aten = torch.ops.aten


# Formulas take the shapes of the operation's arguments.
def _product(_, left, right, *__, **___) -> int:
    return 2 * math.prod(left) * right[-1]


def _attention(query, key, value, *_, **__) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad, query, key, value, *_, **__) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# Operations that torch's counter (2.13) ignores although it has their formula.
TAUGHT = {
    aten.addmm_: _product,
    aten.baddbmm_: _product,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
# Words in the names of operations that multiply or decompose matrices. If such an operation has no
# formula, the count is incomplete.
PRODUCTS = {
    *("mm", "bmm", "gemm", "addmm", "baddbmm", "addbmm", "sspaddmm", "mv", "addmv", "dot", "vdot"),
    *("svd", "eig", "eigh", "eigvals", "eigvalsh", "qr", "geqrf", "householder", "ormqr"),
    *("cholesky", "lu", "inv", "inverse", "pinv", "solve", "lstsq", "lobpcg", "attention"),
    *("conv", "convolution", "matmul", "einsum", "bilinear", "cdist"),
}


# The position of the left of two matrices among an operation's arguments; the right one follows.
LEFT = {aten.mm: 0, aten.bmm: 0} | dict.fromkeys(
    (aten.addmm, aten.baddbmm, aten.addmm_, aten.baddbmm_), 1
)
LARGEST = 8  # how many products a count keeps: those with most FLOPs


class Product(NamedTuple):
    """A number of products of n x k and k x m matrices in one call."""

    dtype: torch.dtype
    stack: int
    n: int
    k: int
    m: int

    def __str__(self) -> str:
        return f"{self.stack} of {self.n}x{self.k} @ {self.k}x{self.m}"

    @property
    def flops(self) -> int:
        return 2 * self.stack * self.n * self.k * self.m


@dataclass(frozen=True)
class Count:
    """flops: of all products, None if `missed` names operations without a formula; dtype: that of
    most of them, None if there are none; products: the number of calls with a formula; largest:
    those that take most of the FLOPs."""

    flops: int | None
    missed: list[str]
    dtype: torch.dtype | None
    products: int = field(default=0, compare=False)
    largest: tuple[Product, ...] = field(default=(), compare=False)


class _Products(TorchDispatchMode):
    """Notes the products, their dtypes, and those that have no formula."""

    supports_higher_order_operators = True

    def __init__(self, formulas: dict[Any, Callable]) -> None:
        super().__init__()
        self.formulas = formulas
        self.by_dtype: Counter[torch.dtype] = Counter()
        self.by_product: Counter[Product] = Counter()
        self.missed: set[str] = set()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = getattr(func, "_overloadpacket", func)
        if packet in self.formulas:
            self.count += 1
            tensor = next(value for value in args if isinstance(value, Tensor))
            self.by_dtype[tensor.dtype] += self.formulas[packet](*args, **kwargs, out_val=out)
            if packet in LEFT:
                one = _of(*args[LEFT[packet] : LEFT[packet] + 2])
                self.by_product[one] += one.flops
        elif PRODUCTS & set(packet.__name__.split("_")):
            self.missed.add(packet.__name__)
        return out


def _of(left: Tensor, right: Tensor) -> Product:
    n, k = left.shape[-2:]
    return Product(left.dtype, math.prod(left.shape[:-2]), n, k, right.shape[-1])


def count(work: Callable[[], object]) -> Count:
    """FLOPs (a multiplication and an addition are two) of the matrix products in `work`."""
    counter = FlopCounterMode(display=False, custom_mapping=TAUGHT)
    try:
        with _Products(counter.flop_registry) as products, counter:
            work()
    except RuntimeError as error:
        if "torch dispatch mode" not in str(error):
            raise
        torch.compiler.reset()  # else it would not retry what failed to compile now
        return Count(None, ["torch.compile(fullgraph=True)"], None)
    missed = sorted(products.missed)
    total = None if missed else counter.get_total_flops()
    dtypes = products.by_dtype.most_common(1)
    largest = tuple(product for product, _ in products.by_product.most_common(LARGEST))
    return Count(total, missed, dtypes[0][0] if dtypes else None, products.count, largest)


# --- the peak

LARGE_SQUARE = {"cpu": 2048, "cuda": 8192}  # rows; large enough for the device's best rate
SECONDS, REPEATS = 0.1, 3  # a product is repeated for at least both
CALLS = {"cpu": 1, "cuda": 20}  # calls timed as one: a launch takes longer than a small product


def matmul_peak(
    products: Iterable[Product], dtype: torch.dtype, device: str
) -> dict[str, dict[str, Any] | None]:
    """The best rate of torch.mm and torch.bmm, in FLOP/s, and the product that reached it.

    model_shapes: over those of `products` that have the dtype, with their stacking; large_square:
    for one large square.
    """
    side = LARGE_SQUARE[device]
    return {
        "model_shapes": fastest({one for one in products if one.dtype == dtype}, device),
        "large_square": fastest({Product(dtype, 1, side, side, side)}, device),
    }


def fastest(products: set[Product], device: str) -> dict[str, Any] | None:
    """The fastest of several products; None if there are none."""
    rates = {one: rate(*one[1:], one.dtype, device) for one in sorted(products, key=str)}
    if not rates:
        return None
    best = max(rates, key=rates.__getitem__)
    return {"flops_per_second": rates[best], "product": str(best)}


def rate(stack: int, n: int, k: int, m: int, dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the fastest of several calls, on CUDA of several series of calls."""
    left = torch.randn(stack, n, k, device=device).to(dtype)
    right = torch.randn(stack, m, k, device=device).to(dtype).mT
    if m != n:
        right = right.contiguous()
    multiply = torch.bmm
    if stack == 1:
        multiply, left, right = torch.mm, left[0], right[0]
    multiply(left, right)
    best, repeats = float("inf"), 0
    end = meter.clock(device) + SECONDS
    while repeats < REPEATS or time.perf_counter() < end:
        best = min(best, meter.seconds(device, lambda: multiply(left, right), CALLS[device]))
        repeats += 1
    return 2 * stack * n * k * m / best

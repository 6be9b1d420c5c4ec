"""What an orthogonalization costs: products and FLOPs counted by running it, and its time."""

import functools
import time
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench import meter
from optimizers.coefficients import CUBIC, TAYLOR, Triple
from optimizers.orthogonalize import DTYPES, gram_is_cheaper, msign, orthogonalize

aten = torch.ops.aten
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm}
SECONDS = 0.3  # spent on timing one kind of case


class Count(NamedTuple):
    """Matrix products and FLOPs (a multiplication and an addition are two) of one matrix."""

    matmuls: int | None
    flops: int | None


class _Products(TorchDispatchMode):
    """Counts calls of the products that FlopCounterMode knows."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in PRODUCTS
        return func(*args, **(kwargs or {}))


def resolved(form: str, shape: tuple[int, int], triples: list[Triple], dtype: str) -> str:
    """`auto` as newton_schulz or gram, whichever it is for this shape."""
    if form != "auto":
        return form
    with FakeTensorMode():
        X = torch.empty(1, *shape, dtype=DTYPES[dtype])
        return "gram" if gram_is_cheaper(X, triples) else "newton_schulz"


def count(form: str, shape: tuple[int, int], triples: list[Triple], dtype: str) -> Count:
    """By running the iteration on matrices without storage.

    Products on torch's meta device, where each is one call; FLOPs as on a CPU, where a large
    symmetric product is computed once, in pieces. None for exact: torch counts no FLOPs for an SVD.
    """
    if form == "exact":
        return Count(None, None)
    with _Products() as products:
        orthogonalize(torch.empty(1, *shape, dtype=DTYPES[dtype], device="meta"), triples, form)
    with FakeTensorMode(), FlopCounterMode(display=False) as flops:
        orthogonalize(torch.empty(1, *shape, dtype=DTYPES[dtype]), triples, form)
    return Count(products.count, flops.get_total_flops())


def milliseconds(
    form: str, shape: tuple[int, int], triples: list[Triple], dtype: str
) -> dict[str, Any]:
    """Median and spread of one matrix's time, its norm included.

    The time does not depend on the coefficients' values (bounded, no zeros among them), so it is
    measured once for all sets with equally many steps and as many cubic ones.
    """
    cubic = sum(c == 0 for _, _, c in triples) if form != "exact" else 0
    return _milliseconds(form, shape, len(triples), cubic, dtype)


@functools.cache
def _milliseconds(
    form: str, shape: tuple[int, int], steps: int, cubic: int, dtype: str
) -> dict[str, Any]:
    X = torch.randn(1, *shape).to(DTYPES[dtype])
    triples = [TAYLOR] * (steps - cubic) + [CUBIC] * cubic

    def run() -> None:
        msign(X) if form == "exact" else orthogonalize(X, triples, form)

    return meter.summary(_seconds(run, at_least=3, scale=1e3))


@functools.cache
def gemm_peak(dtype: str) -> float:
    """FLOP/s of this machine's best product of square matrices in a dtype: the ceiling."""
    best = 0.0
    for size in (256, 512, 1024, 2048):
        A = torch.randn(1, size, size).to(DTYPES[dtype])
        fastest = min(_seconds(lambda A=A: torch.bmm(A, A), at_least=3))
        best = max(best, 2 * size**3 / fastest)
    return best


def _seconds(run, at_least: int, scale: float = 1.0) -> list[float]:
    """Times of repeated runs, after one that warms up, for about SECONDS."""
    times: list[float] = []
    begin = last = time.perf_counter()
    run()
    warm = time.perf_counter() - last
    while len(times) < at_least or time.perf_counter() - begin + warm < SECONDS:
        last = time.perf_counter()
        run()
        times.append((time.perf_counter() - last) * scale)
        if len(times) >= 100:
            break
    return times

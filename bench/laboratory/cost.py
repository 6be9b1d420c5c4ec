"""The cost of an orthogonalization: products and FLOPs, counted while it runs, and its time."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.measuring import flops, meter
from optimizers.coefficients import CUBIC, TAYLOR, Triple
from optimizers.orthogonalize.iteration import DTYPES, gram_is_cheaper, msign, orthogonalize

# Rows of the products whose best rate is the ceiling.
SQUARES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
SECONDS = 0.3  # time spent on one kind of case
CALLS = {"cpu": 1, "cuda": 20}  # calls timed as one: a launch takes longer than a small product


class Count(NamedTuple):
    """Matrix products and FLOPs (a multiplication and an addition are two) for one matrix."""

    matmuls: int | None
    flops: int | None


def resolved(
    form: str, shape: tuple[int, int], triples: list[Triple], dtype: str, device: str = "cpu"
) -> str:
    """`auto` as newton_schulz or gram, the one that it means for this shape on this device."""
    if form != "auto":
        return form
    with FakeTensorMode():
        X = torch.empty(1, *shape, dtype=DTYPES[dtype], device=device)
        return "gram" if gram_is_cheaper(X, triples) else "newton_schulz"


def count(
    form: str, shape: tuple[int, int], triples: list[Triple], dtype: str, device: str = "cpu"
) -> Count:
    """Counts while the iteration runs on matrices without storage.

    Products are counted on torch's meta device, where each is one call; FLOPs as on the device: a
    CPU computes a large symmetric product once, in pieces. None for exact: torch counts no FLOPs
    for an SVD.
    """
    if form == "exact":
        return Count(None, None)
    X = torch.empty(1, *shape, dtype=DTYPES[dtype], device="meta")
    whole = flops.count(lambda: orthogonalize(X, triples, form))
    with FakeTensorMode():
        X = torch.empty(1, *shape, dtype=DTYPES[dtype], device=device)
        done = flops.count(lambda: orthogonalize(X, triples, form))
    return Count(whole.products, done.flops)


def milliseconds(
    form: str, shape: tuple[int, int], triples: list[Triple], dtype: str, device: str = "cpu"
) -> dict[str, Any]:
    """Median and spread of the time per matrix, including its norm.

    The time does not depend on the values of the coefficients (bounded, none of them zero), so it
    is measured once for all sets with the same numbers of steps and of cubic steps.
    """
    cubic = sum(c == 0 for _, _, c in triples) if form != "exact" else 0
    return _milliseconds(form, shape, len(triples), cubic, dtype, device)


@functools.cache
def _milliseconds(
    form: str, shape: tuple[int, int], steps: int, cubic: int, dtype: str, device: str
) -> dict[str, Any]:
    X = torch.randn(1, *shape, device=device).to(DTYPES[dtype])
    triples = [TAYLOR] * (steps - cubic) + [CUBIC] * cubic

    def run() -> None:
        msign(X) if form == "exact" else orthogonalize(X, triples, form)

    return meter.summary([1e3 * each for each in _seconds(run, device, at_least=3)])


@functools.cache
def gemm_peak(dtype: str, device: str = "cpu") -> float:
    """FLOP/s of the device's best product of square matrices in a dtype, the ceiling."""
    return max(flops.rate(1, size, size, size, DTYPES[dtype], device) for size in SQUARES[device])


def _seconds(run: Callable[[], object], device: str, at_least: int) -> list[float]:
    """Times of repeated runs for about SECONDS, after one warm-up run."""
    times: list[float] = []
    begin = time.perf_counter()
    run()
    warm = meter.clock(device) - begin
    while len(times) < at_least or time.perf_counter() - begin + warm < SECONDS:
        times.append(meter.seconds(device, run, CALLS[device]))
        if len(times) >= 100:
            break
    return times

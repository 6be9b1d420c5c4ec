"""Measures latency and bandwidth of the collectives among these processes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from scipy.optimize import nnls

from bench.measuring import meter
from bench.processes.world import World
from optimizers.sharding.exchange import ALL_GATHER

SIZES = [2**power for power in range(12, 24, 2)]  # bytes that a process sends in one call
REPEATS = 7
# torch's name from 2.13 on, and the earlier one.
REDUCE_SCATTER = (
    "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
)


def sweep(world: World, device: str) -> dict[str, dict[str, Any]]:
    """By kind latency_s (of a call) and bytes_per_second, with the measurements behind them.

    Each size takes the fastest of REPEATS calls, because disturbances only add time.
    bytes_per_second is None if time does not grow with the size. One process has none.
    """
    if world.size == 1:
        return {}
    found = {}
    for kind, make in CALLS.items():
        seconds = [_fastest(make(size, world, device), device) for size in SIZES]
        latency, per_byte = fit(SIZES, seconds)
        found[kind] = {
            "latency_s": latency,
            "bytes_per_second": 1 / per_byte if per_byte else None,
            "bytes": SIZES,
            "ms": [1e3 * one for one in seconds],
        }
    return found


def fit(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """Latency and seconds per byte, neither below 0, by least squares of relative errors."""
    times = np.array(seconds)
    rows = np.stack([1 / times, np.array(sizes) / times], 1)
    scale = rows.max(0)  # the two differ by many powers of ten
    found, _ = nnls(rows / scale, np.ones(len(times)))
    latency, per_byte = (found / scale).tolist()
    return latency, per_byte


def _fastest(call: Callable[[], object], device: str) -> float:
    """Seconds of the fastest call; the same on all processes, that of the slowest process."""
    best = []
    call()
    for _ in range(REPEATS):
        dist.barrier()
        began = meter.clock(device)
        call()
        best.append(meter.clock(device) - began)
    slowest = torch.tensor(best, dtype=torch.float64, device=device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return slowest.min().item()


def _all_gather(size: int, world: World, device: str) -> Callable[[], object]:
    part = torch.zeros(size // (world.size - 1) // 4, device=device)
    whole = torch.empty(world.size * len(part), device=device)
    return lambda: getattr(dist, ALL_GATHER)(whole, part)


def _reduce_scatter(size: int, world: World, device: str) -> Callable[[], object]:
    part = torch.zeros(size // (world.size - 1) // 4, device=device)
    whole = torch.zeros(world.size * len(part), device=device)
    return lambda: getattr(dist, REDUCE_SCATTER)(part, whole)


def _all_to_all(size: int, world: World, device: str) -> Callable[[], object]:
    each = size // (world.size - 1) // 4
    sent = torch.zeros(world.size * each, device=device)
    received = torch.empty_like(sent)
    return lambda: dist.all_to_all_single(received, sent)


def _all_reduce(size: int, world: World, device: str) -> Callable[[], object]:
    whole = torch.zeros(size * world.size // (2 * (world.size - 1)) // 4, device=device)
    return lambda: dist.all_reduce(whole)


def _broadcast(size: int, world: World, device: str) -> Callable[[], object]:
    whole = torch.zeros(size // (world.size - 1) // 4, device=device)
    return lambda: dist.broadcast(whole, 0)


CALLS = {
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
    "all_reduce": _all_reduce,
    "broadcast": _broadcast,
}

"""Model FLOPs utilization: the rate of forward and backward products relative to the peak.

The peak is the best rate of torch.mm for two square matrices. It is measured in the run's own
process, with its threads and in the dtype of most of the products.
"""

from typing import Any

from bench.measuring import flops

SQUARES = {"cpu": (512, 1024), "cuda": (8192,)}  # rows
SHARE = 0.01  # of the training time: the most that measuring the peak may take


def of(
    counted: flops.Count | None,
    examples: int,
    step_seconds: float,
    train_seconds: float,
    device: str,
    processes: int = 1,
) -> dict[str, Any] | None:
    """The utilization of steps with this many examples over all processes, one device each.

    counted: the FLOPs of one example; if None, the result is None. step_seconds: includes the
    optimizer's step, whose own products do not count. The peak, and so the utilization, is None if
    a run was too short to measure it.
    """
    per_step = of_a_step(counted, examples)
    if counted is None or counted.dtype is None or per_step is None:
        return None
    each = per_step / step_seconds / processes
    peak = None
    if seconds_of_peak(each, device) <= SHARE * train_seconds:
        squares = {flops.Product(counted.dtype, 1, n, n, n) for n in SQUARES[device]}
        peak = flops.fastest(squares, device)
    return {
        "per_step": per_step,
        "dtype": str(counted.dtype).removeprefix("torch."),
        "per_second": per_step / step_seconds,
        "peak": peak,
        "utilization": None if peak is None else each / peak["flops_per_second"],
    }


def of_a_step(counted: flops.Count | None, examples: int) -> int | None:
    """FLOPs of forward and backward over this many examples; None if unknown."""
    return counted.flops * examples if counted is not None and counted.flops else None


def seconds_of_peak(least: float, device: str) -> float:
    """The most seconds that measuring takes on a device with at least this many FLOP/s."""
    calls = 1 + flops.REPEATS * flops.CALLS[device]
    return sum(max(flops.SECONDS, calls * 2 * n**3 / least) for n in SQUARES[device])

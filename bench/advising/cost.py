"""Computes the cost of a step at the requested batch from times and bytes; pure functions.

Peak memory is the sum of weights, optimizer state and the larger of two parts: what a forward and
backward holds (linear in the batch), and gradients plus temporaries of a step.
"""

from typing import Any

import numpy as np

from bench.advising.measure import Measured
from bench.measuring import meter, overhead
from bench.measuring.overhead import Array, Sampled
from bench.stepping.settings import REFERENCE
from bench.stepping.summary import AGAIN

TORCH = "torch_muon"  # compared with ours, besides AdamW
WEIGHT = 4  # bytes


def costs(measured: Measured, asked: int) -> dict[str, dict[str, Any]]:
    """Costs by optimizer; asked: the units of a step."""
    labels = [label for label in measured.times if isinstance(label, str)]
    steps = {label: measured.times[label] for label in labels}
    sampled = overhead.sample(measured.units, [measured.times[u] for u in measured.units], steps)
    noise = overhead.noise(sampled, REFERENCE, AGAIN)["ms"]
    forward_backward_r, certain = at(sampled, asked)
    peaks = {label: peak(measured, label, asked) for label in labels}
    found: dict[str, dict[str, Any]] = {e: {"error": why} for e, why in measured.errors.items()}
    for label in labels:
        if label == AGAIN:
            continue
        step_r, reference_r = sampled.steps[label], sampled.steps[REFERENCE]
        extra_r = overhead.overhead(forward_backward_r, step_r, reference_r)
        found[label] = {
            "error": None,
            "step_ms": meter.summary(steps[label]),
            "difference_ms": overhead.difference(sampled, label, REFERENCE, noise),
            "overhead": overhead.estimate(extra_r) | {"measured": certain},
            "break_even": overhead.estimate(1 / (1 + extra_r)),
            "over_torch_muon": over(sampled, label, TORCH, forward_backward_r),
            "units_at": overhead.units_at(sampled, label, REFERENCE),
            "state_bytes": measured.state[label],
            "state_saved": 1 - measured.state[label] / measured.state[REFERENCE],
            "peak_bytes": peaks[label],
            "peak_saved": 1 - peaks[label] / peaks[REFERENCE],
        }
    return found


def at(sampled: Sampled, units: int) -> tuple[Array, bool]:
    """Milliseconds of forward and backward; measured if possible, otherwise from the line."""
    known = list(sampled.units_k)
    if units in known:
        return sampled.forward_backward_rk[:, known.index(units)], True
    largest_r = sampled.forward_backward_rk[:, -1]  # a larger batch takes no less time
    return np.maximum(sampled.a_r + sampled.b_r * units, largest_r), False


def over(sampled: Sampled, label: str, other: str, forward_backward_r: Array) -> Any:
    """A whole step's overhead over another optimizer's; None if that was not measured."""
    if other not in sampled.steps or label in (other, REFERENCE):
        return None
    extra_r = overhead.overhead(forward_backward_r, sampled.steps[label], sampled.steps[other])
    return overhead.estimate(extra_r)


def peak(measured: Measured, label: str, asked: int) -> float:
    """The most bytes during a step at the requested batch."""
    held = measured.held
    if asked in held:
        most = float(held[asked])
    else:
        low, high = min(held), max(held)
        slope = max(0.0, (held[high] - held[low]) / (high - low))
        most = held[high] + slope * (asked - high)
    temporary = measured.gradients + measured.temporary[label]
    return WEIGHT * measured.parameters + measured.state[label] + max(most, temporary)


def milliseconds(measured: Measured, asked: int) -> float:
    """Milliseconds of forward and backward at the requested batch: the median, or from the line."""
    times = [measured.times[u] for u in measured.units]
    sampled = overhead.sample(measured.units, times, {})
    return float(at(sampled, asked)[0][0])

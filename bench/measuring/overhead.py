"""The overhead over AdamW as a function of the batch: measured, fitted, extrapolated.

    overhead(u) = (forward_backward(u) + step) / (forward_backward(u) + AdamW's step) - 1

for u units (tokens or images) per step, from medians over rounds. Forward+backward is fitted as a +
b u by least squares. Each array has an axis r: row 0 is the measurement, and every other row is
resampled from the rounds (the same rounds for everything timed in turns), with a line through all
batch sizes or all but one. So the intervals contain the spread of the times and their deviation
from a line. Bootstrap: Efron 1979, doi.org/10.1214/aos/1176344552.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = ("0.05", "0.02", "0.01")
RESAMPLES = 2000
COVERAGE = 0.95
FARTHEST = 2**40  # units per step at which an extrapolation ends
SHOWN = 10  # pictures show up to this many times the largest measured batch

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sampled:
    """Median times in ms, as measured (row 0) and resampled.

    units_k: tokens or images of each measured batch, ascending; a_r, b_r: the line in ms and ms per
    unit; steps: each optimizer's step, (r,).
    """

    units_k: Array
    forward_backward_rk: Array
    a_r: Array
    b_r: Array
    steps: dict[str, Array]


def sample(
    units: list[int], forward_backward: list[list[float]], steps: dict[str, list[float]]
) -> Sampled:
    """From the ms of every round: one list per batch size, one list per optimizer."""
    units_k = np.array(units, dtype=float)
    fb_kn = np.array(forward_backward)
    rounds = fb_kn.shape[1]
    generator = np.random.default_rng(0)
    draws_rn = generator.integers(rounds, size=(RESAMPLES + 1, rounds))
    draws_rn[0] = np.arange(rounds)
    fb_rk = np.stack([np.median(row[draws_rn], axis=1) for row in fb_kn], axis=1)
    left_out_r = generator.integers(len(units) + 1, size=RESAMPLES + 1)
    left_out_r[0] = len(units)  # no batch is left out
    weights_rk = np.arange(len(units)) != left_out_r[:, None]
    a_r, b_r = line(units_k, fb_rk, weights_rk.astype(float))
    medians = {name: np.median(np.array(ms)[draws_rn], axis=1) for name, ms in steps.items()}
    return Sampled(units_k, fb_rk, a_r, b_r, medians)


def line(units_k: Array, ms_rk: Array, weights_rk: Array) -> tuple[Array, Array]:
    """Least squares for ms = a + b units, one line per row."""
    total = weights_rk.sum(1, keepdims=True)
    units_rk = units_k - (weights_rk * units_k).sum(1, keepdims=True) / total
    mean_r1 = (weights_rk * ms_rk).sum(1, keepdims=True) / total
    b_r = (weights_rk * units_rk * ms_rk).sum(1) / (weights_rk * units_rk**2).sum(1)
    center_r = units_k[0] - units_rk[:, 0]
    return mean_r1[:, 0] - b_r * center_r, b_r


def estimate(values_r: Array) -> dict[str, float]:
    """The measured value and the interval that contains COVERAGE of the resampled values."""
    tail = (1 - COVERAGE) / 2
    low = np.quantile(values_r[1:], tail, method="lower")  # no mean of two: values may be infinite
    high = np.quantile(values_r[1:], 1 - tail, method="higher")
    return {"value": float(values_r[0]), "low": float(low), "high": float(high)}


def fit(sampled: Sampled) -> dict[str, Any]:
    """The line, and the distance of the measured medians from it."""
    on_line = sampled.a_r[0] + sampled.b_r[0] * sampled.units_k
    residual = sampled.forward_backward_rk[0] - on_line
    return {
        "a_ms": estimate(sampled.a_r),
        "b_ms_per_unit": estimate(sampled.b_r),
        "residual_ms": [float(r) for r in residual],
        "largest_relative_residual": float(np.max(np.abs(residual) / on_line)),
    }


def overhead(forward_backward_r: Array, step_r: Array, reference_r: Array) -> Array:
    return (forward_backward_r + step_r) / (forward_backward_r + reference_r) - 1


def curve(sampled: Sampled, name: str, reference: str, farther: list[int]) -> list[dict[str, Any]]:
    """Points at the measured batches and, from the line, at the batches of `farther`."""
    step_r, reference_r = sampled.steps[name], sampled.steps[reference]
    points = []
    for k, units in enumerate(sampled.units_k):
        values_r = overhead(sampled.forward_backward_rk[:, k], step_r, reference_r)
        points.append({"units": int(units), **estimate(values_r), "measured": True})
    for units in farther:
        values_r = overhead(sampled.a_r + sampled.b_r * units, step_r, reference_r)
        points.append({"units": units, **estimate(values_r), "measured": False})
    return points


def units_at(sampled: Sampled, name: str, reference: str) -> dict[str, dict[str, Any]]:
    """For each level, the units per step from which the overhead is at most that level.

    0: at any batch; infinity: never, because forward+backward does not grow with the batch.
    `measured` is false if the value is above the largest measured batch.
    """
    found = {}
    for level in LEVELS:
        step_r, reference_r = sampled.steps[name], sampled.steps[reference]
        # a + b u + step = (1 + level) (a + b u + reference)
        grown_r = (step_r - reference_r) / float(level) - reference_r - sampled.a_r
        with np.errstate(divide="ignore", invalid="ignore"):
            reached_r = np.where(sampled.b_r > 0, grown_r / sampled.b_r, np.inf)
        units_r = np.where(grown_r <= 0, 0.0, reached_r)
        at = estimate(units_r)
        found[level] = {
            "units": at.pop("value"),
            **at,
            "measured": bool(units_r[0] <= sampled.units_k[-1]),
        }
    return found


def farther(sampled: Sampled, ends: list[dict[str, dict[str, Any]]]) -> list[int]:
    """Batches above the measured ones, doubling, until all overheads are below the last level."""
    last = [at[LEVELS[-1]]["units"] for at in ends]
    end = min(FARTHEST, max(units for units in last if np.isfinite(units)))
    grid = [2 * int(sampled.units_k[-1])]
    while grid[-1] < end:
        grid.append(2 * grid[-1])
    return grid


def noise(sampled: Sampled, reference: str, again: str) -> dict[str, float]:
    """The reference against itself: `ms` is a difference without meaning."""
    difference = estimate(sampled.steps[again] - sampled.steps[reference])
    return difference | {"ms": max(abs(difference["low"]), abs(difference["high"]))}


def difference(sampled: Sampled, name: str, reference: str, noise_ms: float) -> dict[str, Any]:
    """A step minus the reference's, in ms; `within_noise`: it cannot be distinguished from zero."""
    ms = estimate(sampled.steps[name] - sampled.steps[reference])
    unclear = ms["low"] <= 0 <= ms["high"] or abs(ms["value"]) <= noise_ms
    return ms | {"within_noise": bool(unclear)}

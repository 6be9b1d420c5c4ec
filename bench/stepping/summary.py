"""Turns the measurements of a step benchmark into the content of its record."""

import statistics
from dataclasses import dataclass
from typing import Any

from bench.measuring import flops, meter, overhead
from bench.stepping.settings import REFERENCE

AGAIN = f"{REFERENCE} again"  # the second half of the A/A pair

# The keys of one optimizer; null if it failed.
KEYS = (
    *("step_ms", "step_ms_by_role", "step_ms_rounds", "difference_ms", "forward_backward_ms"),
    *("overhead", "units_at", "state_bytes", "peak_temporary_bytes"),
    *("peak_temporary_bytes_by_step", "left_bytes_by_step", "temporary_grows"),
    *("flops", "flops_by_role"),
    *("flops_missed", "flops_dtype", "gemm_share", "gemm_share_large_square", "theory"),
    *("orthogonalization_ms", "orthogonalization_gemm_share", "span_ms", "marginal_ms"),
    "communication",
)


# Facts that other keys are computed from.
UNSHOWN = ("iterations", "matrices", "products", "orthogonalization_flops", "traffic")


@dataclass(frozen=True)
class Measured:
    """facts: by optimizer, what needs no turns; times: ms of every round, by role for each
    optimizer and by units for forward+backward; orthogonalization: its ms in every round of each
    optimizer, 0 if not measured separately; work: FLOPs of forward+backward; rows: a linear map's
    input rows per unit; peaks: the best rates of products by dtype."""

    facts: dict[str, dict[str, Any]]
    times: dict[Any, list[Any]]
    orthogonalization: dict[str, list[float]]
    units: list[int]
    work: dict[int, flops.Count]
    rows: float | None
    peaks: dict[str, Any]


def summary(measured: Measured, errors: dict[str, str]) -> dict[str, Any]:
    """The measured part of the record; optimizers that failed have only their error."""
    times, units, work = measured.times, measured.units, measured.work
    steps = {
        name: [sum(parts.values()) for parts in rounds]
        for name, rounds in times.items()
        if name not in units
    }
    sampled = overhead.sample(units, [times[u] for u in units], steps)
    noise = overhead.noise(sampled, REFERENCE, AGAIN)
    labels = [label for label in measured.facts if label in steps]
    ends = {label: overhead.units_at(sampled, label, REFERENCE) for label in labels}
    grid = overhead.farther(sampled, list(ends.values()))
    optimizers = {label: dict.fromkeys(KEYS) | {"error": e} for label, e in errors.items()}
    forward_backward = [
        {"units": u, **meter.summary(times[u]), "flops": work[u].flops} for u in units
    ]
    for label in labels:
        optimizers[label] = {
            "error": None,
            "communication": None,  # run.py adds it under parallel=…
            "span_ms": None,  # and these two on a GPU
            "marginal_ms": None,
            **times_of(times[label], steps[label]),
            "difference_ms": overhead.difference(sampled, label, REFERENCE, noise["ms"]),
            "forward_backward_ms": forward_backward,
            "overhead": overhead.curve(sampled, label, REFERENCE, grid),
            "units_at": ends[label],
            **work_of(measured, label),
        }
    for one in optimizers.values():
        for point in one["overhead"] or []:
            point["theory"] = at_bound(one["theory"], measured.rows, point["units"])
            point["flop_share"] = flop_share(one["flops"], work, point["units"])
    return {
        "reference": REFERENCE,
        "noise": {"pair": [REFERENCE, AGAIN], "difference_ms": noise},
        "fit": overhead.fit(sampled),
        "rows_per_unit": measured.rows,
        "flops_missed": sorted({name for count in work.values() for name in count.missed}),
        "matmul_peak": measured.peaks,
        "optimizers": optimizers,
    }


def times_of(rounds: list[dict[str, float]], steps: list[float]) -> dict[str, Any]:
    roles = {role: [parts[role] for parts in rounds] for role in rounds[0]}
    return {
        "step_ms": meter.summary(steps),
        "step_ms_by_role": {role: meter.summary(ms) for role, ms in roles.items()},
        "step_ms_rounds": steps,
    }


def work_of(measured: Measured, label: str) -> dict[str, Any]:
    """What was measured without turns, with the FLOP rate and the theory derived from it."""
    facts = {k: v for k, v in measured.facts[label].items() if k not in UNSHOWN}
    rounds = measured.times[label]
    median = statistics.median(sum(parts.values()) for parts in rounds)
    alone = measured.orthogonalization[label]
    own = meter.summary(alone) if all(alone) else None
    products = {
        "flops": measured.facts[label]["orthogonalization_flops"] if own else None,
        "flops_dtype": facts["flops_dtype"],
    }
    return {
        **facts,
        **gemm_shares(facts, median, measured.peaks),
        "orthogonalization_ms": own,
        "orthogonalization_gemm_share": gemm_shares(
            products, statistics.median(alone), measured.peaks
        )["gemm_share"],
        "theory": bound(measured.facts[label]["iterations"], measured.facts[label]["matrices"]),
    }


def bound(steps: int | None, matrices: list[tuple[int, int]]) -> dict[str, int] | None:
    """T and m of the bound T m / B on the FLOPs that orthogonalization adds.

    Source: https://kellerjordan.github.io/posts/muon/ (B: the rows that a matrix is multiplied
    with). It holds for each matrix with m its smaller side; here m is the largest of these: the
    model's width, or a head's if each head is a matrix.
    """
    sides = [min(shape) for shape in matrices if min(shape) > 1]
    return {"iterations": steps, "dimension": max(sides)} if steps and sides else None


def at_bound(theory: dict[str, int] | None, rows: float | None, units: int) -> float | None:
    if theory is None or rows is None:
        return None
    return theory["iterations"] * theory["dimension"] / (rows * units)


def flop_share(own: int | None, work: dict[int, flops.Count], units: int) -> float | None:
    """Optimizer FLOPs / forward+backward FLOPs; above the largest batch extrapolated."""
    counted = units if units in work else max(work)
    of_model = work[counted].flops
    if own is None or not of_model:
        return None
    return own / (of_model * units / counted)


def gemm_shares(one: dict[str, Any], ms: float, peaks: dict[str, Any]) -> dict[str, float | None]:
    """The FLOP rate of a whole step relative to the best rates of a matrix product."""
    shares = {"gemm_share": "model_shapes", "gemm_share_large_square": "large_square"}
    found = {}
    for key, kind in shares.items():
        peak = peaks.get(one["flops_dtype"], {}).get(kind)
        rate = one["flops"] / (1e-3 * ms) if one["flops"] else None
        found[key] = rate / peak["flops_per_second"] if peak and rate else None
    return found

"""Findings from step benchmarks, for conf/claim/cost/."""

import statistics
from typing import Any

from bench.records.origin import slug
from bench.settings.config import DEVICES
from bench.studies.results import Results
from bench.verdicts.finding import Finding


def overhead(results: Results, *, step: str, arm: str, units: int) -> list[Finding]:
    """A step's overhead at `units` tokens (images) per step, one finding per device.

    Undecided on a device that measured other batches, because the overhead falls with the batch.
    The finding then states the extrapolation, and the value at the largest measured batch.
    """
    stems = [f"{step}-{device}" for device in DEVICES if device != "auto"]
    names = [name for stem in stems for name in of_each_gpu(results, stem)]
    found = [finding for name in names for finding in overhead_on(results, name, arm, units)]
    missing = Finding(step, missing=f"bench/step.py with {arm}: results/{names[0]}")
    return found or [missing]


def of_each_gpu(results: Results, stem: str) -> list[str]:
    """The step benchmark of this name, and others that also have their GPU's name because another
    GPU's existed before (scripts/gpu_unpack.py)."""
    found = [f"steps/{stem}.json"]
    for file in sorted((results.folder / "steps").glob(f"{stem}-*.json")):
        gpu = (results.json(f"steps/{file.name}") or {"environment": {}})["environment"].get("gpu")
        if gpu and file.stem == f"{stem}-{slug(gpu)}":
            found.append(f"steps/{file.name}")
    return found


def overhead_on(results: Results, name: str, arm: str, units: int) -> list[Finding]:
    """The same for one step benchmark; nothing if the arm is not in it."""
    measured = results.json(name) or {"optimizers": {}}
    one = measured["optimizers"].get(arm)
    if one is None or one["error"]:
        return []
    unit, of = f"{measured['unit']} a step", one["overhead"]
    device = measured["environment"].get("gpu") or "CPU"
    point = next((p for p in of if p["units"] == units and p["value"] is not None), None)
    largest = max((p for p in of if p["measured"]), key=lambda p: p["units"])
    where = f"{arm} at {units:,} {unit} on {device}"
    if point is None:
        return [Finding(where, missing=f"a batch of {units:,} {unit} in results/{name}")]
    why = f"extrapolated; measured {largest['value']:.1%} at {largest['units']:,} {unit}"
    return [
        Finding(
            where,
            *(point["value"], point["low"], point["high"]),
            n=one["step_ms"]["n"],
            unit="overhead",
            undecided=None if point["measured"] else why,
            records=[name],
        )
    ]


def relative_time(results: Results, *, step: str, arm: str, against: str) -> list[Finding]:
    """The time of an arm's step relative to another's, timed in turn with it: for each device the
    median over rounds, and their range."""
    found = []
    stems = [f"{step}-{device}" for device in DEVICES if device != "auto"]
    for name in (name for stem in stems for name in of_each_gpu(results, stem)):
        measured = results.json(name) or {"optimizers": {}}
        pair = [measured["optimizers"].get(label) for label in (arm, against)]
        if any(one is None or one["error"] or not one.get("step_ms_rounds") for one in pair):
            continue
        own, other = (one["step_ms_rounds"] for one in pair)
        ratios = sorted(a / b for a, b in zip(own, other, strict=True))
        where = f"{arm} against {against} on {measured['environment'].get('gpu') or 'CPU'}"
        value, low, high = statistics.median(ratios), ratios[0], ratios[-1]
        unit = "time / the other's"
        found.append(Finding(where, value, low, high, len(ratios), unit, records=[name]))
    return found or [Finding("", missing=f"bench/step.py model={step} with {arm} and {against}")]


def near_peak(results: Results, *, step: str, arm: str, needs: str) -> list[Finding]:
    """The FLOP rate of Muon's products on each accelerator, relative to the fastest of these
    products alone. needs: what to run if there is no record."""
    found = []
    for name, measured, one in _on_accelerators(results, step, arm):
        share = one.get("orthogonalization_gemm_share")
        if share is not None:
            where = f"{arm}, {measured['environment']['gpu']}"
            shared = dict(n=one["step_ms"]["n"], unit="of the peak", records=[name])
            found.append(Finding(where, share, share, share, **shared))
    return found or [Finding("", missing=needs)]


def idle_gaps(results: Results, *, step: str, arm: str, needs: str) -> list[Finding]:
    """Idle time of each accelerator in a forward and backward, largest batch first, in units of the
    optimizer's step (marginal_ms); launched one by one, and as a graph, which removes gaps between
    launches."""
    found = []
    for name, measured, one in _on_accelerators(results, step, arm):
        for batch in reversed(measured.get("timeline", {}).get("batches", ())):
            for how in ("launched", "graph"):
                gaps = batch[how]
                if not gaps or "error" in gaps or not one.get("marginal_ms"):
                    continue
                span, ms = gaps["span_ms"]["median"], one["marginal_ms"]["median"]
                share = gaps["idle_share"]
                value, low, high = (span * share[key] / ms for key in ("median", "p10", "p90"))
                where = f"{batch['units']:,} {measured['unit']} a step, {how}, "
                where += measured["environment"]["gpu"]
                unit = "idle time / a step's"
                found.append(Finding(where, value, low, high, share["n"], unit, records=[name]))
    return found or [Finding("", missing=needs)]


def hidden(results: Results, *, step: str, arm: str, needs: str) -> list[Finding]:
    """The share of a step's time that each accelerator saves by starting the step in the backward
    pass, from marginal_ms of both."""
    found = []
    overlapped = f"{arm} optimizer.overlap=backward"
    for name, measured, one in _on_accelerators(results, step, arm):
        other = measured["optimizers"].get(overlapped)
        if not other or other["error"] or not other.get("marginal_ms"):
            continue
        alone, begun = one["marginal_ms"], other["marginal_ms"]
        value, low, high = (
            1 - begun[there] / alone[here]
            for here, there in (("median", "median"), ("p10", "p90"), ("p90", "p10"))
        )
        where = f"{arm}, {measured['environment']['gpu']}"
        found.append(Finding(where, value, low, high, begun["n"], "saved", records=[name]))
    return found or [Finding("", missing=needs)]


def _on_accelerators(
    results: Results, step: str, arm: str
) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The step benchmarks of a model that include an arm, except a CPU's: file, record, the arm. A
    timeline may have its own benchmark."""
    devices = [device for device in DEVICES if device not in ("auto", "cpu")]
    stems = [f"{step}-{device}{more}" for device in devices for more in ("", "-gaps")]
    found = []
    for name in (name for stem in stems for name in of_each_gpu(results, stem)):
        measured = results.json(name)
        one = (measured or {"optimizers": {}})["optimizers"].get(arm)
        if measured and one and not one["error"]:
            found.append((name, measured, one))
    return found

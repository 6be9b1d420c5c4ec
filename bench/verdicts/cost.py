"""What step benchmarks say on a claim, for conf/claim/cost/."""

from typing import Any

from bench.records.origin import slug
from bench.settings.config import DEVICES
from bench.studies.results import Results
from bench.verdicts.finding import Finding


def overhead(results: Results, *, step: str, arm: str, level: float) -> list[Finding]:
    """A step's overhead at each measured batch, the largest first, and where it is `level`.

    step: the model of the step benchmarks; each device that has one is a condition of its own.
    """
    stems = [f"{step}-{device}" for device in DEVICES if device != "auto"]
    names = [name for stem in stems for name in of_each_gpu(results, stem)]
    found = [finding for name in names for finding in overhead_on(results, name, arm, level)]
    missing = Finding(step, missing=f"bench/step.py with {arm}: results/{names[0]}")
    return found or [missing]


def of_each_gpu(results: Results, stem: str) -> list[str]:
    """The step benchmark of this name, and those beside it that have their GPU's name as well, as
    another's was there before (scripts/gpu_unpack.py)."""
    found = [f"steps/{stem}.json"]
    for file in sorted((results.folder / "steps").glob(f"{stem}-*.json")):
        gpu = (results.json(f"steps/{file.name}") or {"environment": {}})["environment"].get("gpu")
        if gpu and file.stem == f"{stem}-{slug(gpu)}":
            found.append(f"steps/{file.name}")
    return found


def overhead_on(results: Results, name: str, arm: str, level: float) -> list[Finding]:
    """The same of one step benchmark; nothing where the arm has no part in it."""
    measured = results.json(name) or {"optimizers": {}}
    one = measured["optimizers"].get(arm)
    if one is None or one["error"]:
        return []
    unit, at = f"{measured['unit']} a step", one["units_at"][f"{level:g}"]
    if gpu := measured["environment"].get("gpu"):
        unit += f" on {gpu}"
    shared = dict(n=one["step_ms"]["n"], unit="overhead", records=[name])
    found = [
        Finding(
            f"{arm} at {point['units']:,} {unit}",
            *(point["value"], point["low"], point["high"]),
            **shared,
        )
        for point in reversed(one["overhead"])
        if point["measured"]
    ]
    if at["units"] is None:
        return found
    low, high = ("never" if at[end] is None else f"{at[end]:,.0f}" for end in ("low", "high"))
    how = "measured" if at["measured"] else "extrapolated"
    beyond = f"{arm} from {at['units']:,.0f} {unit} on ({low} to {high}, {how})"
    return [*found, Finding(beyond, level, level, level, holds=True, **shared)]


def near_peak(results: Results, *, step: str, arm: str, needs: str) -> list[Finding]:
    """The FLOP rate of Muon's products on each accelerator, as a share of the fastest of them by
    itself. needs: what to run where there is none."""
    found = []
    for name, measured, one in _on_accelerators(results, step, arm):
        share = one.get("orthogonalization_gemm_share")
        if share is not None:
            where = f"{arm}, {measured['environment']['gpu']}"
            shared = dict(n=one["step_ms"]["n"], unit="of the peak", records=[name])
            found.append(Finding(where, share, share, share, **shared))
    return found or [Finding("", missing=needs)]


def idle_gaps(results: Results, *, step: str, arm: str, needs: str) -> list[Finding]:
    """Idle time of each accelerator in a forward and backward, largest batch first, in steps of
    the optimizer (marginal_ms); launched one by one, and as a graph, in which gaps of launches
    vanish."""
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
    """What of a step's time each accelerator saves where the step begins in the backward pass, by
    marginal_ms of both."""
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
    """The step benchmarks of a model that hold an arm, never a CPU's: file, record, the arm. A
    timeline may have one to itself."""
    devices = [device for device in DEVICES if device not in ("auto", "cpu")]
    stems = [f"{step}-{device}{more}" for device in devices for more in ("", "-gaps")]
    found = []
    for name in (name for stem in stems for name in of_each_gpu(results, stem)):
        measured = results.json(name)
        one = (measured or {"optimizers": {}})["optimizers"].get(arm)
        if measured and one and not one["error"]:
            found.append((name, measured, one))
    return found

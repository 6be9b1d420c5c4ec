"""What step benchmarks say on a claim, for conf/claim/cost/."""

from bench.settings.config import DEVICES
from bench.studies.results import Results
from bench.verdicts.finding import Finding


def overhead(results: Results, *, step: str, arm: str, level: float) -> list[Finding]:
    """A step's overhead at each measured batch, the largest first, and where it is `level`.

    step: the model of the step benchmarks; each device that has one is a condition of its own.
    """
    names = [f"steps/{step}-{device}.json" for device in DEVICES if device != "auto"]
    found = [finding for name in names for finding in overhead_on(results, name, arm, level)]
    missing = Finding(step, missing=f"bench/step.py with {arm}: results/{names[0]}")
    return found or [missing]


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

"""What each chart shows in a sentence or two: its caption, and its text for screen readers.

Pure functions of the plotted data. The text calls something a difference only if its test does.
"""

import math
from typing import Any

from bench.communication.extrapolation import Point
from bench.display.numbers import megabytes, short
from bench.measuring.overhead import SHOWN
from bench.studies import comparison, curves, standing
from bench.studies.comparison import Arm, Comparison
from bench.studies.difference import BEYOND, EQUAL, SMALLER
from bench.studies.stats import Estimate
from bench.studies.words import decimals, percent, plain, span

SHOWN_TOKENS = 2**22  # tokens per step, for the extrapolation to many processes


def differences(every: list[Comparison]) -> str:
    """Which arms are shown to differ from the baseline, which to be alike, and which are open."""
    several = len(every) > 1
    lower: list[str] = []
    higher: list[str] = []
    within: list[str] = []
    undecided: list[str] = []
    for one in every:
        if standing.early(one):
            continue
        for arm in tested(one):
            assert arm.difference is not None
            place = f" ({one.condition})" * several
            number = size(arm.difference.estimate)[0]
            if arm.difference.outcome == BEYOND:
                side = lower if arm.difference.estimate.mean < 0 else higher
                side.append(f"{arm.name} {number}{place}")
            elif arm.difference.outcome in (SMALLER, EQUAL):
                within.append(f"{arm.name}{place}")
            else:
                undecided.append(f"{arm.name}{place}")
    study = every[0].study
    bound = f"Within ±{study.margin:g} nats of it" if study.margin else "Within the margin"
    by = f" by more than {study.margin:g} nats" if study.margin else ""
    sides = {
        f"Lower loss than {study.baseline}{by}": lower,
        "Higher" if lower else f"Higher loss than {study.baseline}{by}": higher,
        bound: within,
        "Not decided": undecided,
        "Early training, not judged": [one.condition for one in every if standing.early(one)],
    }
    said = [f"{what}: {', '.join(names)}." for what, names in sides.items() if names]
    return " ".join(said) or "No difference was tested: that takes two seeds of both arms."


def experiments(every: list[Comparison]) -> str:
    """The same for several experiments, each with its name."""
    names = dict.fromkeys(one.study.name for one in every)
    of = {name: [one for one in every if one.study.name == name] for name in names}
    return " ".join(f"{name}: {differences(found)}" for name, found in of.items())


def size(difference: Estimate) -> tuple[str, str]:
    """A difference with at most three decimals, and its interval."""
    return span(difference, "+", digits=decimals(difference, 3))


def tested(one: Comparison) -> list[Arm]:
    """The arms whose difference has an interval, the lowest first."""
    found = [arm for arm in one.arms if arm.difference and arm.difference.estimate.n > 1]
    return sorted(found, key=lambda arm: arm.difference.estimate.mean if arm.difference else 0)


def curve(one: Comparison) -> str:
    """The finding for the one loss chart that a page without a choice shows."""
    if of_variants(one):
        return gap(one)
    return loss(one, "seconds" if one.study.equal_time_of else "steps")


def of_variants(one: Comparison) -> bool:
    """Whether the comparison is between variants of Muon, not between Muon and AdamW."""
    base = one.arm(one.study.baseline)
    return base is not None and base.runs[0].record["optimizer"] != "adamw"


def loss(one: Comparison, against: str) -> str:
    """Where the curves end; over seconds also how long each arm's run takes."""
    ends = {arm.name: curve[-1] for arm in arms(one) if (curve := curves.curve(arm.runs))}
    if not ends:
        return "No run has finished."
    best = min(ends, key=lambda name: ends[name][1].mean)
    base = one.study.baseline
    step, estimate = ends[best]
    said = f"{one.condition}: after {step:,} steps {best} is lowest on average, at "
    said += plain(estimate.mean, 3)
    if base in ends and base != best:
        said += f"; {base} is at {plain(ends[base][1].mean, 3)}"
    seconds = comparison.step_seconds(one)
    if against == "seconds" and base in seconds and best in seconds and base != best:
        said += f". A step of {best} takes {seconds[best] / seconds[base]:.2f} times as long as "
        said += f"one of {base}"
    return f"{said}."


def gap(one: Comparison) -> str:
    """Which arm ends furthest from the baseline, and which nearest to it."""
    ends = {name: found[-1][1] for name, found in gaps(one).items()}
    if not ends:
        return "No pair of runs has finished."
    order = sorted(ends, key=lambda name: abs(ends[name].mean))
    said = f"{one.condition}: at the end {order[-1]} is furthest from {one.study.baseline}, "
    said += size(ends[order[-1]])[0]
    if len(order) > 1:
        said += f", and {order[0]} nearest, {size(ends[order[0]])[0]}"
    return f"{said} nats of validation loss."


def gaps(one: Comparison) -> dict[str, list[tuple[int, Any]]]:
    """By arm: its validation loss minus the baseline's at each step."""
    base = one.arm(one.study.baseline)
    if base is None:
        return {}
    found = {arm.name: curves.gap(arm.runs, base.runs) for arm in arms(one) if arm is not base}
    return {name: of for name, of in found.items() if of}


def tuning(one: Comparison) -> str:
    """The best rate of each arm, or its searches' results, and which lie at an edge."""
    own = [arm for arm in arms(one) if arm.name in one.study.tuned()]
    chosen = [f"{arm.name} {arm.rate:.3g}" for arm in own]
    said = f"{one.condition}: the rate chosen is {', '.join(chosen)} times the base rate."
    edges = [arm.name for arm in own if arm.at_edge]
    if edges:
        said += " At the edge of what was tried, so that a better one may lie beyond: "
        said += f"{', '.join(edges)}."
    return said


def accuracy(one: Comparison) -> str:
    found = {a.name: a.test_accuracy for a in arms(one) if a.test_accuracy}
    best = max(found, key=lambda name: found[name].mean)
    worst = min(found, key=lambda name: found[name].mean)
    return (
        f"{one.condition}: {best} classifies {percent(found[best].mean)} of the test images "
        f"rightly on average, {worst} {percent(found[worst].mean)}."
    )


def share(one: Comparison) -> str:
    found = {
        arm.name: value for arm in arms(one) if (value := arm.median("optimizer_share")) is not None
    }
    most, least = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
    return (
        f"{one.condition}: the optimizer takes {percent(found[most])} of a step with {most}, "
        f"{percent(found[least])} with {least}."
    )


def memory(one: Comparison) -> str:
    """The smallest and the largest state."""
    keys = ("optimizer_state_bytes", "total")
    found = {arm.name: value for arm in arms(one) if (value := arm.median(*keys)) is not None}
    if not found:
        return f"{one.condition}: the optimizer's state was not counted."
    most, least = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
    said = f"{one.condition}: {least} keeps {megabytes(found[least])} between steps, {most} "
    said += megabytes(found[most])
    return said + (f" ({percent(found[least] / found[most] - 1, 0, '+')})." if found[most] else ".")


def overhead(step: dict[str, Any]) -> str:
    """The overhead of each optimizer at the largest measured batch, and where it is under 5 %."""
    unit, largest = step["unit"], max(step["batches"]) * step["units_per_example"]
    said, under = [], []
    for name, points in drawn(step).items():
        value = next(p["value"] for p in points if p["units"] == largest)
        said.append(f"{name} {percent(value, 0, '+')}")
        at = step["optimizers"][name]["units_at"]["0.05"]
        if at["units"] is not None and math.isfinite(at["units"]):
            mark = "" if at["measured"] else "~"
            under.append(f"{name} {mark}{short(at['units'])}")
    if not said:
        return "No optimizer costs more than AdamW beyond the noise."
    found = f"At {largest:,} {unit} a step, the most that was measured: {', '.join(said)}."
    if under:
        found += f" Under 5 % from so many {unit} on (~: extrapolated): {', '.join(under)}."
    return found


def drawn(step: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """By optimizer the plotted points: the measured ones, and those up to ten times as far.

    Optimizers that failed or differ from the reference only within the noise are left out.
    """
    end = SHOWN * max(step["batches"]) * step["units_per_example"]
    return {
        name: [
            point
            for point in one["overhead"]
            if None not in (point["value"], point["low"], point["high"]) and point["units"] <= end
        ]
        for name, one in step["optimizers"].items()
        if not one["error"] and not one["difference_ms"]["within_noise"]
    }


def extrapolated(points: list[Point]) -> str:
    """Up to how many GPUs each strategy's communication stays below 5 %, for the largest model."""
    last, tokens = points[-1].model, SHOWN_TOKENS
    found = []
    for strategy in dict.fromkeys(point.strategy for point in points):
        own = [p for p in points if (p.model, p.strategy, p.tokens) == (last, strategy, tokens)]
        over = [p.gpus for p in own if p.share("communication") > 0.05]
        most = max((p.gpus for p in own), default=0)
        found.append(
            f"{strategy} passes 5 % at {min(over):,} GPUs"
            if over
            else f"{strategy} stays below 5 % up to {most:,} GPUs"
        )
    return (
        f"Extrapolated, nothing measured; {last} at {tokens:,} tokens a step: {'; '.join(found)}."
    )


def arms(one: Comparison) -> list[Arm]:
    """All arms except A/A arms."""
    return [arm for arm in one.arms if not arm.noise]

"""Where to start: settings, each with the record behind it; pure functions.

Rates and other tuned settings come from the nearest study with the same kind of data. Settings that
no study tuned come from the recipe and are marked so. They are a start for the user's own tuning,
not its end.
"""

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from bench.advising.evidence import Setting, setting
from bench.advising.verdict import Distance, distance
from bench.settings.schema import CONF, Settings
from bench.studies import study
from bench.studies.comparison import Arm, Comparison
from bench.studies.difference import BEYOND
from bench.studies.results import Results
from bench.studies.trials import Found

RECIPE = "no record: the recipe's"
SPLIT, KELLER = "split", "keller"
KINDS = {"optimizer=adamw": "adamw", "optimizer=hybrid": "hybrid"}  # by an arm's only override


@dataclass(frozen=True)
class Tuned:
    """A study's result for an arm: for each axis of studies/axes.py the median over its searches,
    with the least and the most (for a grid: only the best rate)."""

    arm: str
    source: str
    setting: Setting
    axes: dict[str, tuple[float, float, float]]  # median, least, most
    at_edge: bool


@dataclass(frozen=True)
class Value:
    """One setting: its name for readers, its value, and its source."""

    name: str
    value: Any
    source: str


@dataclass(frozen=True)
class Start:
    """values: shown to the user; scales: by arm the rate to start from, in multiples of its file's;
    optimizer: differences from conf/optimizer/hybrid.yaml; qkv, orthogonalizer: files of conf/;
    warmup: steps, None for the default; apart: the distance of the record of the rates."""

    values: list[Value]
    scales: dict[str, float]
    optimizer: dict[str, Any]
    qkv: str
    orthogonalizer: str
    warmup: int | None
    apart: Distance | None


def tuned(results: Results) -> list[Tuned]:
    """The results of every study that compares optimizers at equal steps."""
    found = []
    for name in study.declared():
        declared = study.load(name)
        tunes = declared.grid or declared.search
        if declared.equal_time_of or declared.continues or not tunes:
            continue
        for one in results.comparisons(name, None):
            for arm in one.arms:
                kind = KINDS.get(" ".join(declared.arms[arm.name]))
                if kind and not arm.noise and (axes := _axes(arm)):
                    place, at = f"{name}/{one.condition}", setting(arm.runs[0].record)
                    found.append(Tuned(kind, place, at, axes, arm.at_edge))
    return found


def _axes(arm: Arm) -> dict[str, tuple[float, float, float]]:
    if arm.searched is not None:
        return _of_search(arm.searched)
    if arm.tuned is not None:
        return {"rate": (arm.tuned.rate,) * 3}
    return {}


def _of_search(found: Found) -> dict[str, tuple[float, float, float]]:
    points = [trial.point for trial in found.winners().values()]
    names = set.intersection(*(set(point) for point in points))
    values = {name: [point[name] for point in points] for name in sorted(names)}
    return {name: (statistics.median(v), min(v), max(v)) for name, v in values.items()}


def preferred(found: Iterable[Comparison], case: Setting, baseline: str) -> tuple[str, str]:
    """The arm to start with, and why, from the condition nearest to the case: the study's baseline,
    unless another arm is shown to be lower by more than the margin and training was not early."""
    there = [one for one in found if one.arms and one.arm(baseline)]
    same = [one for one in there if _trained(one).task == case.task]
    if not same:
        return baseline, RECIPE
    one = min(same, key=lambda one: distance(case, _trained(one)).size)
    place = f"{one.study.name}/{one.condition}"
    if one.early:
        return baseline, f"{place}: early training, not judged"
    better = [
        (arm.difference.estimate.mean, arm.name)
        for arm in one.arms
        if arm.difference and arm.difference.outcome == BEYOND and arm.difference.estimate.mean < 0
        and len(_own_words(one, arm.name)) == 1
    ]  # fmt: skip
    if better:
        loss, name = min(better)
        return name, f"{place}: {-loss:.3f} lower than {baseline}"
    least = min(arm.test_loss.n for arm in one.arms if not arm.noise)
    return baseline, f"{place}: no other shown lower (n={least})"


def _trained(one: Comparison) -> Setting:
    return setting(one.arms[0].runs[0].record)


def _own_words(one: Comparison, arm: str) -> list[str]:
    """What an arm sets besides the optimizer, if the first value is its name; otherwise nothing."""
    words = [word for word in one.study.arms[arm] if not word.startswith("optimizer=")]
    return words if words and words[0].split("=")[-1] == arm else []


def closest(every: list[Tuned], arm: str, case: Setting) -> Tuned | None:
    """The nearest one with the same kind of data; among equally near ones that with most axes."""
    fitting = [one for one in every if one.arm == arm and one.setting.task == case.task]
    order = {id(one): (distance(case, one.setting).size, -len(one.axes)) for one in fitting}
    return min(fitting, key=lambda one: order[id(one)], default=None)


def start(results: Results, case: Setting, hybrid: Settings) -> Start:
    """hybrid: its settings from its file."""
    every = tuned(results)
    qkv, why_qkv = preferred(results.comparisons("qkv", None), case, SPLIT)
    sets, why_set = preferred(results.comparisons("orthogonalizer", None), case, KELLER)
    best = {arm: closest(every, arm, case) for arm in ("adamw", "hybrid")}
    values, optimizer, warmup = _recipe(best["hybrid"], case, hybrid)
    values += [Value("Q, K, V", qkv, why_qkv), Value("coefficients", sets, why_set)]
    scales = {arm: one.axes["rate"][0] for arm, one in best.items() if one}
    own = best["hybrid"]
    apart = distance(case, own.setting) if own else None
    return Start(values, scales, optimizer, qkv, sets, warmup, apart)


def _recipe(
    found: Tuned | None, case: Setting, hybrid: Settings
) -> tuple[list[Value], dict[str, Any], int | None]:
    """What is shown of rates, averaging, decay and warm-up; the differences from the optimizer's
    file; and the steps of the warm-up."""
    hidden, rest = hybrid.optimizer["roles"]["hidden"], hybrid.optimizer["roles"]["default"]
    rate, relative = _of(found, "rate", 1.0), _of(found, "auxiliary", 1.0)
    why_rate = why_rest = _why(found, "rate")
    if found:
        apart = "auxiliary" in found.axes
        why_rest = _why(found, "auxiliary") if apart else f"{why_rate}; one rate for both"
    momentum = round(1 - _of(found, "momentum", 1 - hidden["momentum"]), 4)
    decay, why_decay = _decay(found, case, {"hidden": hidden, "default": rest})
    shown, warmup = _warmup(found, case, hybrid.schedule["name"])
    roles = {role: {"weight_decay": value} for role, value in decay.items()}
    roles["hidden"]["momentum"] = momentum
    scales = {"lr_scale": short(rate), "aux_lr_scale": short(relative)}
    values = [
        Value("rate, Muon's part", short(hidden["lr"] * rate), why_rate),
        Value("rate, AdamW's part", short(rest["lr"] * rate * relative), why_rest),
        Value("momentum", momentum, _why(found, "momentum")),
        Value("weight decay", decay["hidden"], why_decay),
        Value("warm-up", shown, _why(found, "warmup")),
    ]
    return values, {**scales, "roles": roles}, warmup


def _of(found: Tuned | None, axis: str, usual: float) -> float:
    return found.axes[axis][0] if found and axis in found.axes else usual


def _why(found: Tuned | None, axis: str) -> str:
    if found is None or axis not in found.axes:
        return RECIPE
    edge = ", at the edge of what was tried" * (axis == "rate" and found.at_edge)
    return found.source + _range(found.axes[axis]) + edge


def _decay(
    found: Tuned | None, case: Setting, rules: dict[str, dict[str, Any]]
) -> tuple[dict[str, float], str]:
    """Weight decay by role, and why: the search varied rate × decay × steps."""
    usual = {role: rule["weight_decay"] for role, rule in rules.items()}
    if found is None or "decay" not in found.axes:
        return usual, RECIPE
    if not case.steps:
        return usual, f"the recipe's: that of {found.source} needs train.steps="
    rate = _of(found, "rate", 1.0) * case.steps
    decay = {role: short(found.axes["decay"][0] / (r["lr"] * rate)) for role, r in rules.items()}
    return decay, f"{_why(found, 'decay')}: rate × decay × steps"


def _warmup(found: Tuned | None, case: Setting, schedule: str) -> tuple[str, int | None]:
    """The text to show, and the steps, None if unknown. Without a record they come from the
    schedule's file, because some models' files have fewer, for short demonstrations."""
    if found is None or "warmup" not in found.axes:
        file = CONF / "schedule" / f"{schedule}.yaml"
        usual = OmegaConf.select(OmegaConf.load(file), "warmup_steps")
        return f"{usual} steps", usual
    share = found.axes["warmup"][0]
    if not case.steps:
        return f"{share:.1%} of the run", None
    return f"{round(share * case.steps)} steps", round(share * case.steps)


def _range(axis: tuple[float, float, float]) -> str:
    """How far apart the searches lie, as a factor."""
    _, least, most = axis
    return f" (searches {most / least:.2g}× apart)" if most > least else ""


def short(value: float) -> float:
    return float(f"{value:.3g}")


def grid(scales: dict[str, float]) -> list[float]:
    """Rates as powers of two, from a step below both arms' starts to a step above both."""
    logs = [math.log2(scale) for scale in scales.values()] or [0.0]
    low, high = math.floor(min(logs)) - 1, math.ceil(max(logs)) + 1
    return list(_powers(low, high))


def _powers(low: int, high: int) -> Iterator[float]:
    return (2.0**power for power in range(low, high + 1))

"""Where to start: settings, each with the record that it comes from; pure functions.

Rates and what else a study tuned come from the one nearest to the case of its kind of data; what no
study tuned is the recipe's, and says so. They are a start for one's own tuning, not its end.
"""

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.advising.evidence import Setting, setting
from bench.advising.verdict import Distance, distance
from bench.settings.schema import Settings
from bench.studies import study
from bench.studies.comparison import Arm, Comparison
from bench.studies.difference import BEYOND
from bench.studies.results import Results
from bench.studies.search import Found

RECIPE = "no record: the recipe's"
SPLIT, KELLER = "split", "keller"
KINDS = {"optimizer=adamw": "adamw", "optimizer=hybrid": "hybrid"}  # by an arm's only override


@dataclass(frozen=True)
class Tuned:
    """What a study found for an arm, per axis of studies/axes.py the median over its searches (the
    best of a grid: its rate alone), with the least and the most of them."""

    arm: str
    source: str
    setting: Setting
    axes: dict[str, tuple[float, float, float]]  # median, least, most
    at_edge: bool


@dataclass(frozen=True)
class Value:
    """One setting: its name to a reader, its value, and where it comes from."""

    name: str
    value: Any
    source: str


@dataclass(frozen=True)
class Start:
    """values: to be shown; scales: by arm the rate to start from, in multiples of its file's;
    optimizer: what differs from conf/optimizer/hybrid.yaml; qkv, orthogonalizer: files of conf/;
    warmup: steps, None for the default; apart: how far the record of the rates is."""

    values: list[Value]
    scales: dict[str, float]
    optimizer: dict[str, Any]
    qkv: str
    orthogonalizer: str
    warmup: int | None
    apart: Distance | None


def tuned(results: Results) -> list[Tuned]:
    """What every study that compares optimizers at equal steps found."""
    found = []
    for name in study.declared():
        declared = study.load(name)
        if declared.equal_time_of or not (declared.grid or declared.search):
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
    """The arm to start with, and why: the study's baseline, unless one is shown to be lower by
    more than the margin and training was not early; of the condition nearest to the case."""
    there = [one for one in found if one.arms and one.arm(baseline)]
    same = [one for one in there if _of(one).task == case.task]
    if not same:
        return baseline, RECIPE
    one = min(same, key=lambda one: distance(case, _of(one)).size)
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


def _of(one: Comparison) -> Setting:
    return setting(one.arms[0].runs[0].record)


def _own_words(one: Comparison, arm: str) -> list[str]:
    """What an arm sets beside the optimizer: of one word its name says all."""
    words = [word for word in one.study.arms[arm] if not word.startswith("optimizer=")]
    return words if words and words[0].split("=")[-1] == arm else []


def closest(every: list[Tuned], arm: str, case: Setting) -> Tuned | None:
    """Of the same kind of data; of equally near ones that with most axes."""
    fitting = [one for one in every if one.arm == arm and one.setting.task == case.task]
    order = {id(one): (distance(case, one.setting).size, -len(one.axes)) for one in fitting}
    return min(fitting, key=lambda one: order[id(one)], default=None)


def start(results: Results, case: Setting, hybrid: Settings) -> Start:
    """hybrid: its settings as its file has them."""
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
    """What is shown of rates, averaging, decay and warm-up; what differs of the optimizer's file;
    and the steps of the warm-up."""
    hidden, rest = hybrid.optimizer["roles"]["hidden"], hybrid.optimizer["roles"]["default"]
    axes = found.axes if found else {}

    def of(axis: str, usual: float) -> float:
        return axes[axis][0] if axis in axes else usual

    def why(axis: str) -> str:
        if found is None or axis not in axes:
            return RECIPE
        edge = ", at the edge of what was tried" * (axis == "rate" and found.at_edge)
        return found.source + _range(axes[axis]) + edge

    rate, relative = of("rate", 1.0), of("auxiliary", 1.0)
    momentum = round(1 - of("momentum", 1 - hidden["momentum"]), 4)
    optimizer: dict[str, Any] = {"lr_scale": short(rate), "aux_lr_scale": short(relative)}
    change: dict[str, dict[str, Any]] = {"hidden": {"momentum": momentum}}
    decay = {"hidden": hidden["weight_decay"], "default": rest["weight_decay"]}
    why_decay = RECIPE
    if "decay" in axes and case.steps:
        for role, rule in (("hidden", hidden), ("default", rest)):
            decay[role] = short(axes["decay"][0] / (rule["lr"] * rate * case.steps))
        why_decay = f"{why('decay')}: rate × decay × steps"
    elif "decay" in axes:
        why_decay = f"the recipe's: {found.source if found else ''} needs train.steps="
    for role, value in decay.items():
        change.setdefault(role, {})["weight_decay"] = value
    optimizer["roles"] = change
    share = of("warmup", math.nan)
    warmup = round(share * case.steps) if case.steps and not math.isnan(share) else None
    shown = warmup if warmup is not None else None if math.isnan(share) else f"{share:.1%}"
    steps = f"{shown} steps" if warmup is not None else f"{shown} of the run"
    usual = hybrid.schedule["warmup_steps"]
    return (
        [
            Value("rate, Muon's part", short(hidden["lr"] * rate), why("rate")),
            Value(
                "rate, AdamW's part",
                short(rest["lr"] * rate * relative),
                why("auxiliary") if "auxiliary" in axes else f"{why('rate')}; one rate for both"
                if found else RECIPE,
            ),
            Value("momentum", momentum, why("momentum")),
            Value("weight decay", decay["hidden"], why_decay),
            Value("warm-up", f"{usual} steps" if shown is None else steps, why("warmup")),
        ],
        optimizer,
        warmup,
    )  # fmt: skip


def _range(axis: tuple[float, float, float]) -> str:
    """How far the searches lie apart, in multiples."""
    _, least, most = axis
    return f" (searches {most / least:.2g}× apart)" if most > least else ""


def short(value: float) -> float:
    return float(f"{value:.3g}")


def grid(scales: dict[str, float]) -> list[float]:
    """Rates that hold the starts of both arms and a step beyond either, as powers of two."""
    logs = [math.log2(scale) for scale in scales.values()] or [0.0]
    low, high = math.floor(min(logs)) - 1, math.ceil(max(logs)) + 1
    return list(_powers(low, high))


def _powers(low: int, high: int) -> Iterator[float]:
    return (2.0**power for power in range(low, high + 1))

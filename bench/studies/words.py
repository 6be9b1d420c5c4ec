"""The report's words and short numbers, generated from comparisons and records."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench.display.numbers import duration
from bench.records.archive import Run
from bench.studies import sensitivity, standing, stats
from bench.studies.comparison import Arm, Comparison
from bench.studies.difference import EQUAL, Difference
from bench.studies.stats import Estimate
from bench.studies.study import FINAL, TUNE

STATE = ("optimizer_state_bytes", "total")


def decimals(one: Estimate, most: int) -> int:
    """Decimals that give the interval's half width two digits; 3 without an interval."""
    half = (one.high - one.low) / 2
    digits = 1 - math.floor(math.log10(half)) if 0 < half < math.inf else 3
    return min(most, max(0, digits))


def common(every: Iterable[Estimate]) -> int:
    """The decimals for a column of estimates: those of its least certain one."""
    return min((decimals(one, 4) for one in every if one.n > 1), default=3)


def plain(value: float, places: int, sign: str = "") -> str:
    """A number whose minus sign is as wide as a plus."""
    return f"{value:{sign},.{places}f}".replace("-", "−")


def percent(share: float | None, places: int = 1, sign: str = "") -> str:
    return "–" if share is None else f"{plain(100 * share, places, sign)} %"


def span(
    one: Estimate, sign: str = "", percent: bool = False, digits: int | None = None
) -> tuple[str, str]:
    """The mean with its 95 % interval and the number of seeds. digits: decimals, two fewer for a
    share; by default as many as the interval justifies."""
    if not one.n:
        return "–", "no finished run"
    digits = decimals(one, 4) if digits is None else digits
    scale, places = (100, digits - 2) if percent else (1, digits)
    mean, low, high = (
        plain(scale * end, max(0, places), sign) for end in (one.mean, one.low, one.high)
    )
    return mean + " %" * percent, f"{low} to {high}, n={one.n}" if one.n > 1 else "n=1"


def verdict(found: Difference) -> str:
    """The comparison's verdict, if there is something to test."""
    return found.verdict() if found.estimate.n > 1 else "one seed, not tested"


def unit_of(one: Comparison) -> str:
    return "images" if "images_per_step" in one.arms[0].runs[0].record else "tokens"


def batch(one: Comparison) -> str:
    """1,024 tokens"""
    unit = unit_of(one)
    return f"{one.arms[0].median(f'{unit}_per_step') or 0:,.0f} {unit}"


def about(one: Comparison) -> str:
    """Model, its size, steps and batch: gpt2_nano, 4.2 M parameters, 600 steps of 1,024 tokens."""
    models = sorted({run.record["model"] for arm in one.arms for run in arm.runs})
    size = one.arms[0].median("parameters")
    steps = sorted({run.record["steps"] for arm in one.arms for run in arm.runs})
    parts = [", ".join(models)]
    parts += [f"{size / 1e6:.3g} M parameters"] if size else []
    length = "–".join(f"{end:,}" for end in dict.fromkeys((steps[0], steps[-1])))
    return ", ".join([*parts, f"{length} steps of {batch(one)}"])


def answer(one: Comparison) -> str:
    """The results of the arms relative to the baseline, grouped by verdict.

    "adamw reaches a test loss of 4.213 (…). Lower: hybrid −0.310 (95 % −0.330 to −0.290, n=5)."
    """
    base = one.arm(one.study.baseline)
    compared = [(arm.name, arm.difference) for arm in one.arms if arm.difference]
    if base is None or not compared:
        return f"no arm can be compared with {one.study.baseline}."
    groups: dict[str, list[str]] = {}
    for name, difference in sorted(compared, key=lambda pair: pair[1].estimate.mean):
        kind = verdict(difference).split(";")[0]
        number = "{} ({})".format(*span(difference.estimate, "+"))
        groups.setdefault(kind[0].upper() + kind[1:], []).append(f"{name} {number}")
    sentences = ["{} reaches a test loss of {} ({})".format(base.name, *span(base.test_loss))]
    sentences += [f"{kind}: {'; '.join(arms)}" for kind, arms in groups.items()]
    edges = [arm.name for arm in one.arms if arm.at_edge and not arm.noise]
    if edges:
        tried = "of the grid" if one.study.search is None else "of the range that is searched"
        sentences.append(
            f"At the edge {tried}: the rate of {', '.join(edges)}; a better one may lie beyond"
        )
    sentences += one.left_out
    if why := standing.early(one):
        sentences.append(why[0].upper() + why[1:])
    if base.test_loss.n < 2:
        sentences += costs(one, base)
    return ". ".join(sentences) + "."


def costs(one: Comparison, base: Arm) -> list[str]:
    """The overheads, and how much of the baseline's state is saved."""
    others = [arm for arm in one.arms if arm is not base and not arm.noise]
    times = [f"{arm.name} {overhead(arm, one)[0]}" for arm in others if arm.relative_time]
    saved = states(others, base)
    return [
        *([f"Overhead over AdamW, at {batch(one)} a step: {', '.join(times)}"] if times else []),
        *([states_said(saved, base)] if saved else []),
    ]


def states(arms: list[Arm], base: Arm) -> dict[str, float]:
    """By how much each arm's optimizer state is larger than the baseline's, as a share of it."""
    whole = base.median(*STATE)
    sizes = {arm.name: arm.median(*STATE) for arm in arms}
    return {name: own / whole - 1 for name, own in sizes.items() if own and whole}


def states_said(shares: dict[str, float], base: Arm) -> str:
    said = ", ".join(f"{name} {percent(share, sign='+')}" for name, share in shares.items())
    return f"Optimizer state against {base.name}'s: {said}"


def to_target(arm: Arm) -> tuple[str, str]:
    """Median steps to the target loss, and how many runs never reached it."""
    if not arm.steps_to_target:
        return "–", ""
    never, runs = arm.steps_to_target.count(None), len(arm.steps_to_target)
    median = stats.censored_median(arm.steps_to_target)
    return (
        "not reached" if median is None else f"{median:,.0f}",
        f"not by {never} of {runs} runs" if never else "",
    )


def missing(one: Comparison) -> list[str]:
    """The runs that the study declares under this condition but that have no record."""
    study, found = one.study, []
    if study.search is not None:
        ended = Counter((run.stage, run.condition, run.arm) for run in one.runs)
        return [
            f"{lacking} of {count} runs of {stage}, {arm}"
            for (stage, condition, arm), count in study.counts().items()
            if condition == one.declared_as
            and (lacking := count - ended[stage, condition, arm]) > 0
        ]
    tried = [run for run in one.runs if run.stage == TUNE]
    trained = {(run.arm, run.record["seed"]) for run in one.runs if run.stage == FINAL}
    for arm in study.tuned():
        there = {(run.record["lr_scale"], run.record["seed"]) for run in tried if run.arm == arm}
        rates = [r for r in study.grid if any((r, seed) not in there for seed in study.tune_seeds)]
        if rates:
            found.append(f"tuning of {arm} at {', '.join(f'{rate:g}' for rate in rates)}")
    for arm in study.arms:
        seeds = [seed for seed in study.final_seeds if (arm, seed) not in trained]
        if seeds:
            found.append(f"{arm} with seed {', '.join(map(str, seeds))}")
    return found


def notes(one: Comparison, controls: Iterable[Comparison] = ()) -> list[str]:
    """What a reader of a condition's table must know; controls: see sensitivity.doubt."""
    found = []
    if one.target is not None:
        found.append(
            f"Target: a validation loss of {one.target:.4g}, what {one.study.baseline} reached in "
            "tuning. Steps to it: the median over runs."
        )
    if one.noise_floor is not None:
        found.append(
            f"Noise floor: two runs that differ by a perturbation of 1e-6 alone end up to "
            f"{one.noise_floor:.2g} apart (95 %); a single pair that is closer says nothing."
        )
    if one.study.margin:
        equal = any(arm.difference and arm.difference.outcome == EQUAL for arm in one.arms)
        doubt = sensitivity.doubt(one, controls) if equal else None
        but = f" No claim is judged by it: {doubt}." if doubt else ""
        found.append(f"Equal: the 90 % interval lies within ±{one.study.margin:g}.{but}")
    clocks = [(arm.name, arm.median("train_seconds")) for arm in one.arms if not arm.noise]
    raw = ", ".join(f"{name} {duration(value)}" for name, value in clocks if value is not None)
    if raw:
        found.append(
            f"Raw clock of a run, median: {raw}. Runs made hours apart on a shared machine are "
            "not comparable by it; times above and in the charts are."
        )
    return found + standing.notes(one)


MARKS = {  # marks of a commit
    "+": " (+: with changes that were not committed)",
    "?": " (?: not known whether with changes)",
}


def environment(records: Iterable[dict[str, Any]]) -> str:
    """Machine, threads, preloaded libraries, torch, precision and commits of records."""
    machines, commits = {}, {}
    for one in records:
        made = one.get("environment") or {}
        machine = made.get("gpu") or made.get("cpu") or "unknown machine"
        threads = made.get("threads", "?")
        machine += f", {threads} thread{'s' * (threads != 1)}"
        if preload := made.get("preload"):
            machine += f", {preload} preloaded"
        words = f"{machine}, torch {made.get('torch', '?')}, "
        machines[words + str(one.get("precision"))] = True
        commit, dirty = made.get("commit"), made.get("dirty", False)
        mark = {True: "+", None: "?"}.get(dirty, "") if commit else ""
        commits[f"{(commit or 'unknown')[:10]}{mark}"] = True
    notes = "".join(note for mark, note in MARKS.items() if any(mark in name for name in commits))
    return f"{'; '.join(sorted(machines))}; commit {', '.join(sorted(commits))}{notes}"


def commands(runs: Iterable[Run]) -> list[str]:
    """The commands that made the runs, each once."""
    return sorted({str(run.record.get("command") or "unknown") for run in runs})


def overhead(arm: Arm, one: Comparison) -> tuple[str, str]:
    if arm.relative_time is None:
        return "–", ""
    units = arm.median("overhead", "units_per_step")
    at = f"at {units:,.0f} {unit_of(one)}" if units else ""
    return percent(arm.relative_time - 1, sign="+"), at


def rate(arm: Arm, one: Comparison) -> tuple[str, str]:
    """The chosen multiple of the base rate, and what readers must know of the choice."""
    if one.study.search is not None:
        return _searched_rate(arm, one)
    source = one.study.rates_of.get(arm.name)
    notes = [f"as {source}"] if source else []
    notes += ["edge of the grid"] if arm.at_edge else []
    if not arm.tuned:
        own = (source or arm.name) in one.study.tuned()
        notes.append("tuning not whole" if own else "not tuned")
    return f"{arm.rate:g}", "; ".join(notes)


def borrowed(one: Comparison, arm: str) -> str:
    """The experiment and the arm whose settings an arm has; "" if it was tuned for itself."""
    search = one.study.search
    carry = search.carried(one.declared_as, arm) if search else None
    if search is None or carry is None or arm not in search.takes:
        return ""
    return f"{carry.source.split('/')[0]}, {search.takes[arm]}"


def lender(one: Comparison, arms: Iterable[Arm]) -> str:
    """The experiments whose settings arms borrow: language; "" if all were tuned for themselves."""
    found = {borrowed(one, arm.name).partition(",")[0] for arm in arms} - {""}
    return " and ".join(sorted(found))


def _searched_rate(arm: Arm, one: Comparison) -> tuple[str, str]:
    """The range of the rates chosen by an arm's searches, and notes on their source."""
    assert one.study.search is not None
    rates = sorted({run.record["lr_scale"] for run in arm.runs})
    text = "–".join(f"{rate:.2g}" for rate in dict.fromkeys((rates[0], rates[-1])))
    notes = []
    if arm.name in one.study.rates_of:
        notes.append(f"as {one.study.rates_of[arm.name]}")
    elif source := borrowed(one, arm.name):
        notes.append(f"borrowed: {source}")
    elif arm.searched is None:
        notes.append("tuning not whole")
    if arm.searched is not None and (end := arm.searched.crowded()):
        notes.append(f"{end} end of the range")
    return text, "; ".join(notes)

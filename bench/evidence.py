"""What the results say on a claim: the functions that conf/claim/*.yaml names in `measure`.

Each reads records and returns findings, one for a condition; it decides nothing, unless the
evidence carries its own verdict.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench import archive, comparison, stats, study
from bench.archive import Archive
from bench.comparison import LEVEL, Arm, Comparison

BYTES = {  # of what a share is saved, in bytes a weight; the state comes from the records
    "state": 0,
    "weights_state": 4,
    "weights_gradients_state": 8,
}


@dataclass(frozen=True)
class Finding:
    """One measured number that bears on a claim.

    condition: where it was found; low, high: its 95 % interval or range, equal to the value where
    it is exact, or None; holds: whether the claim holds by it, where that is not for the claim's
    rule to say; in_part: the evidence's own verdict is that it depends; undecided: why it can
    decide nothing; missing: what would have to be run first; records: the files it comes from,
    below results/.
    """

    condition: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    holds: bool | None = None
    in_part: bool = False
    undecided: str | None = None
    missing: str | None = None
    note: str = ""
    records: list[str] = field(default_factory=list)


class Results:
    """The results folder, each part read once."""

    def __init__(self, folder: Path, published: bool = False) -> None:
        self.folder = folder
        self.archive: Archive = archive.read(folder, published)
        self.compare = cache(self._compare)
        self.json = cache(self._json)

    def _compare(self, experiment: str, condition: str) -> Comparison:
        return comparison.compare(self.archive, study.load(experiment), condition)

    def _json(self, name: str) -> Any:
        """A file of the laboratory or the step benchmark; None where there is none."""
        try:
            return json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return None

    def comparisons(self, experiment: str, conditions: list[str] | None) -> list[Comparison]:
        """Under each condition, or those named."""
        named = conditions or list(study.load(experiment).conditions)
        return [self.compare(experiment, condition) for condition in named]

    def files(self, arms: Iterable[Arm]) -> list[str]:
        found = {run.file for arm in arms for run in arm.runs}
        return sorted(str(file.relative_to(self.folder)) for file in found)


def difference(
    results: Results,
    *,
    experiment: str,
    arm: str,
    against: str | None = None,
    conditions: list[str] | None = None,
) -> list[Finding]:
    """The test loss of an arm minus that of another (the baseline), paired by seed.

    Undecided where the test, corrected over the arms that are compared with the baseline, shows
    nothing.
    """
    found = []
    for one in results.comparisons(experiment, conditions):
        pair = _pair(results, one, arm, against)
        if isinstance(pair, Finding):
            found.append(pair)
            continue
        ours, theirs, values = pair
        p = _corrected(one, ours, theirs, values)
        estimate = stats.mean_interval(values)
        seeds = stats.seeds_needed(values)
        nothing = f"no difference shown (p={p:.2g}, n={estimate.n}"
        nothing += f"; {seeds:,} seeds would show one of this size)" if seeds else ")"
        found.append(
            Finding(
                one.condition,
                *(estimate.mean, estimate.low, estimate.high, estimate.n),
                unit=f"test loss, {ours.name} - {theirs.name}",
                undecided=None if p < LEVEL else nothing,
                note=_flags(ours, theirs),
                records=results.files([ours, theirs]),
            )
        )
    return found


def equality(
    results: Results,
    *,
    experiment: str,
    arm: str,
    against: str | None = None,
    conditions: list[str] | None = None,
) -> list[Finding]:
    """Whether two arms have the same test loss, within the margin that the experiment states.

    It holds where the 90 % interval of the paired difference lies inside the margin, fails where
    it lies outside, and is undecided in between.
    """
    found = []
    for one in results.comparisons(experiment, conditions):
        pair = _pair(results, one, arm, against)
        if isinstance(pair, Finding):
            found.append(pair)
            continue
        ours, theirs, values = pair
        margin = one.study.margin
        tested = stats.equivalence(values, margin)
        interval = tested.interval
        outside = interval.low >= margin or interval.high <= -margin
        found.append(
            Finding(
                one.condition,
                *(interval.mean, interval.low, interval.high, interval.n),
                unit=f"test loss, {ours.name} - {theirs.name} (90 % interval)",
                holds=True if tested.equal else False if outside else None,
                undecided=None
                if tested.equal or outside
                else f"neither inside ±{margin:g} nor out",
                note=f"margin ±{margin:g}{_flags(ours, theirs, '; ')}",
                records=results.files([ours, theirs]),
            )
        )
    return found


def saving(
    results: Results,
    *,
    experiment: str,
    arm: str,
    of: str,
    conditions: list[str] | None = None,
) -> list[Finding]:
    """The share of memory that an arm saves against the baseline.

    of: state, weights_state, weights_gradients_state (fp32), or peak, which was measured.
    """
    found = []
    for one in results.comparisons(experiment, conditions):
        ours, base = one.arm(arm), one.arm(one.study.baseline)
        if ours is None or base is None:
            found.append(_missing(one, arm))
            continue
        if of == "peak":
            ratios = [
                1 - mine.record["peak_memory_bytes"] / theirs.record["peak_memory_bytes"]
                for mine, theirs in zip(ours.runs, base.runs, strict=False)
                if mine.record["peak_memory_bytes"] and theirs.record["peak_memory_bytes"]
            ]
            value = sum(ratios) / len(ratios)
            low, high, n = min(ratios), max(ratios), len(ratios)
        else:
            own, theirs = (a.median("optimizer_state_bytes", "total") for a in (ours, base))
            aside = BYTES[of] * ours.median("parameters")
            value = low = high = 1 - (own + aside) / (theirs + aside)
            n = 1
        found.append(
            Finding(
                f"{one.condition}, {arm}",
                *(value, low, high, n),
                unit=f"share of {of.replace('_', ' + ')} saved",
                records=results.files([ours, base]),
            )
        )
    return found


def overhead(results: Results, *, step: str, arm: str, level: float) -> list[Finding]:
    """A step's overhead: measured at the largest batch, and the batch from which it is `level`."""
    name = f"steps/{step}.json"
    measured = results.json(name)
    if measured is None or arm not in measured["optimizers"]:
        return [Finding(step, missing=f"bench/step.py with {arm}: results/{name}")]
    one = measured["optimizers"][arm]
    last = [point for point in one["overhead"] if point["measured"]][-1]
    unit, at = measured["unit"], one["units_at"][f"{level:g}"]
    here = Finding(
        f"{arm} at {last['units']:,} {unit} a step",
        *(last["value"], last["low"], last["high"], one["step_ms"]["n"]),
        unit="overhead",
        records=[name],
    )
    if at["units"] is None:
        return [here]
    beyond = Finding(
        f"from {at['units']:,.0f} {unit} a step on ({at['low']:,.0f} to {at['high']:,.0f}, "
        "extrapolated)",
        *(level, level, level, one["step_ms"]["n"]),
        unit="overhead",
        holds=True,
        records=[name],
    )
    return [here, beyond]


def check(results: Results, *, names: list[str]) -> list[Finding]:
    """Checks of the laboratory (bench/ortho.py checks=true), which carry their verdicts."""
    name = "ortho/checks.json"
    known = {one["name"]: one for one in (results.json(name) or {"checks": []})["checks"]}
    found = []
    for wanted in names:
        one = known.get(wanted)
        if one is None:
            found.append(Finding(wanted, missing=f"the check {wanted}: bench/ortho.py checks=true"))
            continue
        verdict = one["verdict"]
        found.append(
            Finding(
                one["condition"],
                *(one["value"], one["low"], one["high"], one["n"]),
                unit=one["unit"],
                holds={"confirmed": True, "refuted": False}.get(verdict),
                in_part=verdict == "depends",
                missing=one["condition"] if verdict == "open" else None,
                records=[name],
            )
        )
    return found


def nothing(results: Results, *, needs: str) -> list[Finding]:
    """For a claim that nothing here can test; needs: what could."""
    return [Finding("", missing=needs)]


def _pair(results: Results, one: Comparison, arm: str, against: str | None):
    """The two arms and their paired differences, or a finding that says what is missing."""
    ours, theirs = one.arm(arm), one.arm(against or one.study.baseline)
    if ours is None or theirs is None:
        return _missing(one, arm if ours is None else against or one.study.baseline)
    losses = [comparison.by_seed(a.runs, "test_loss") for a in (ours, theirs)]
    values = stats.paired(*losses)
    if len(values) < 2:
        return Finding(
            one.condition, missing=f"two finished seeds of {arm}, there are {len(values)}"
        )
    return ours, theirs, values


def _corrected(one: Comparison, ours: Arm, theirs: Arm, values) -> float:
    if theirs.name == one.study.baseline and ours.difference:
        return ours.difference.p
    return stats.p_value(values)[0]


def _flags(ours: Arm, theirs: Arm, lead: str = "") -> str:
    """What a reader has to know of the arms' rates and runs."""
    found = [f"{a.name}'s rate at the edge of the grid" for a in (ours, theirs) if a.at_edge]
    found += [f"{a.diverged} runs of {a.name} diverged" for a in (ours, theirs) if a.diverged]
    return lead + "; ".join(found) if found else ""


def _missing(one: Comparison, arm: str) -> Finding:
    return Finding(one.condition, missing=f"{arm} of experiment={one.study.name}, {one.condition}")

"""What the records say of a case: pure functions of evidence and break-even.

A record applies to a case within a factor of FAR in parameters, in tokens (images) per parameter
and in the batch, on the same kind of device and data. A more distant record is shown, but nothing
is concluded from it.
"""

import math
from dataclasses import dataclass
from typing import Any

from bench.advising.evidence import Evidence, Setting

FAR = 3.0
PAYS, COSTS, OPEN, OUTSIDE, NONE = "pays", "does not pay", "open", "outside", "no record"


@dataclass(frozen=True)
class Distance:
    """The factors from a record's numbers to the case's; None if one is unknown."""

    parameters: float
    each: float | None
    batch: float
    same_task: bool
    same_device: bool

    @property
    def near(self) -> bool:
        ratios = (self.parameters, self.each, self.batch)
        within = all(one is not None and 1 / FAR <= one <= FAR for one in ratios)
        return within and self.same_task and self.same_device

    @property
    def size(self) -> float:
        """Decades, over all directions together; for sorting, with other tasks last."""
        known = [one for one in (self.parameters, self.each, self.batch) if one]
        return math.hypot(*map(math.log10, known)) + 9 * (not self.same_task)


@dataclass(frozen=True)
class Decision:
    """outcome: PAYS, COSTS, OPEN, OUTSIDE or NONE; reason: why, in words; on: the evidence."""

    outcome: str
    reason: str
    on: list[Evidence]


def distance(case: Setting, record: Setting) -> Distance:
    same = case.task == record.task
    each = case.each / record.each if case.each and record.each else None
    return Distance(
        case.parameters / record.parameters,
        each,
        case.units / record.units,
        same,
        case.device == record.device,
    )


def nearest(evidence: list[Evidence], case: Setting) -> list[Evidence]:
    """Evidence by distance; among equally distant conditions those that can be judged first."""
    return sorted(evidence, key=lambda e: (distance(case, e.setting).size, len(e.doubts)))


def speaks(one: Evidence, break_even: dict[str, float]) -> str:
    """What one condition says: is the share below the break-even, with separate intervals?"""
    if one.never == len(one.shares):
        return COSTS if break_even["high"] <= 1 else OPEN
    if one.share is None:
        return OPEN
    if one.share.high < break_even["low"]:
        return PAYS
    return COSTS if one.share.low > break_even["high"] else OPEN


def decide(evidence: list[Evidence], case: Setting, break_even: dict[str, float]) -> Decision:
    """The decision for one arm; evidence: that of this arm alone."""
    if not evidence:
        return Decision(NONE, "nothing compares it with AdamW", [])
    near = [e for e in evidence if distance(case, e.setting).near]
    if not near:
        unknown = case.steps is None
        why = "train.steps= was not said, so tokens a parameter are not known" if unknown else ""
        return Decision(OUTSIDE, why or "no record is near", nearest(evidence, case)[:1])
    judged = [e for e in near if not e.doubts]
    if not judged:
        return Decision(OPEN, f"near, but {nearest(near, case)[0].doubts[0]}", near)
    said = {speaks(e, break_even) for e in judged}
    if said >= {PAYS, COSTS}:
        return Decision(OPEN, "the records contradict each other", judged)
    if said in ({PAYS}, {COSTS}):
        side = "below" if PAYS in said else "above"
        return Decision(said.pop(), f"every record that is near lies {side} the break-even", judged)
    return Decision(OPEN, "the break-even lies within the interval of a record", judged)


def headline(decisions: dict[str, Decision]) -> str:
    """The answer in a sentence, from the decisions by arm."""
    outcomes = {arm: one.outcome for arm, one in decisions.items()}
    pays = [arm for arm, outcome in outcomes.items() if outcome == PAYS]
    if pays:
        return f"Train with {' or '.join(pays)}: by the records near this case it pays in time."
    found = set(outcomes.values())
    if found == {COSTS}:
        return "Stay with AdamW: by the records near this case nothing else pays in time."
    costs = [arm for arm, outcome in outcomes.items() if outcome == COSTS]
    if costs and found <= {COSTS, OUTSIDE, NONE}:
        return f"Not {costs[0]}: by the records near this case it does not pay; else not known."
    if found == {NONE}:
        return "No record: what it costs is measured here, whether it pays is not known."
    if found <= {OUTSIDE, NONE}:
        return "Outside what was measured: no recommendation; what it costs is measured here."
    return "Open: the records near this case do not decide it."


# trends ------------------------------------------------------------------------------------------


def trends(evidence: list[Evidence]) -> list[dict[str, Any]]:
    """How the share changes with the horizon and with the batch, between two conditions of the same
    model that differ only in that (for the batch: at equal tokens). Includes unjudged ones."""
    found = []
    for at, first in enumerate(evidence):
        for second in evidence[at + 1 :]:
            one, two = first.setting, second.setting
            if (one.model, one.device, first.arm) != (two.model, two.device, second.arm):
                continue
            over = _over(one, two)
            if over and first.share and second.share:
                low, high = sorted((first, second), key=lambda e: getattr(e.setting, over))
                found.append(_trend(over, low, high))
    return found


def _over(one: Setting, two: Setting) -> str | None:
    """The setting in which two conditions differ, if it is only one."""
    if one.units == two.units and one.steps != two.steps:
        return "steps"
    same = one.steps and two.steps and one.units * one.steps == two.units * two.steps
    return "units" if same and one.units != two.units else None


def _trend(over: str, low: Evidence, high: Evidence) -> dict[str, Any]:
    assert low.share and high.share
    rises, falls = low.share.high < high.share.low, low.share.low > high.share.high
    return {
        "over": over,
        "arm": low.arm,
        "from": getattr(low.setting, over),
        "to": getattr(high.setting, over),
        "shares": [low.share.mean, high.share.mean],
        "shown": "rises" if rises else "falls" if falls else "not shown",
        "sources": [low.source, high.source],
    }

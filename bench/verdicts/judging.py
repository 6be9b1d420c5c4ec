"""Verdicts: applies a claim's rule to the findings of its measures."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.records import ledger
from bench.settings import targets
from bench.studies.results import Results
from bench.verdicts.ages import Ages
from bench.verdicts.claims import Claim, rule_digest
from bench.verdicts.finding import Finding

CONFIRMED, REFUTED, DEPENDS = "confirmed", "refuted", "depends"
OPEN = "not enough evidence"
THEOREM = "true by a theorem"  # and the computed values agree


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim; the number is the first finding's.

    note: what readers must know of the verdict as a whole; it also starts the condition.
    """

    claim: Claim
    verdict: str
    findings: list[Finding]
    condition: str
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """The verdict in the form of results/verdicts.json."""
        first = next((f for f in self.findings if f.value is not None), Finding(""))
        return {
            "claim": self.claim.name,
            "statement": self.claim.statement,
            "source": self.claim.source,
            "topic": self.claim.topic,
            "verdict": self.verdict,
            "theorem": self.claim.theorem,
            **{key: getattr(first, key) for key in ("value", "low", "high", "n", "unit")},
            "condition": self.condition,
            "note": self.note,
            "findings": [asdict(f) for f in self.findings],
            "records": sorted({file for f in self.findings for file in f.records}),
        }


def judge(claim: Claim, results: Results, ages: Ages | None = None) -> Verdict:
    """Take the measures that the claim names and apply its rule.

    Confirmed or refuted: all decided conditions agree and none is undecided. Depends: they
    disagree, or one holds in part itself. Not enough evidence: none is decided. Conditions without
    records are named; a claim that holds in all others is not confirmed without them. A rule that
    is younger than its records decides nothing until there are new ones; `ages`, if given, detects
    this.
    """
    findings = []
    for measure in claim.measure:
        arguments = {k: v for k, v in measure.items() if k != "_target_"}
        findings += targets.find(measure["_target_"])(results, **arguments)
    findings = [settled(one, claim) for one in findings]
    found = combined(findings)
    if found == CONFIRMED and claim.theorem:
        found = THEOREM
    note = age(claim, findings, ages) if ages else ""
    said = "; ".join(filter(None, (note, conditions(findings))))
    return Verdict(claim, found, findings, said, note)


def settled(one: Finding, claim: Claim) -> Finding:
    """The finding with `holds` set for the claim; reversed if the claim denies another."""
    held = holds(one, claim.rule)
    return replace(one, holds=not held if claim.denies and held is not None else held)


def age(claim: Claim, findings: list[Finding], ages: Ages) -> str:
    """The note that a verdict's rule, or its experiment's declaration, is younger than records."""
    own = rule_digest(claim.measure, claim.rule)
    experiments = {one["experiment"] for one in claim.measure if "experiment" in one}
    studies = {name: ledger.of_experiment(name) for name in experiments}
    files = sorted({file for one in findings for file in one.records})
    return ages.note(own, studies, files)


def holds(finding: Finding, rule: dict[str, Any]) -> bool | None:
    """Whether a rule's condition holds by a finding; None if it is undecided.

    The whole interval must lie inside the rule's range, or wholly outside.
    """
    own = finding.holds is not None or finding.in_part or finding.missing or finding.undecided
    if own or not rule:
        return finding.holds
    ((kind, bound),) = rule.items()
    low, high = {
        "above": lambda: (bound, float("inf")),
        "below": lambda: (float("-inf"), bound),
        "between": lambda: tuple(bound),
    }[kind]()
    if low <= finding.low and finding.high <= high:
        return True
    return False if finding.high < low or high < finding.low else None


def combined(findings: list[Finding]) -> str:
    """The verdict on settled findings."""
    there = [one for one in findings if one.missing is None]
    if any(one.in_part for one in there):
        return DEPENDS
    held = [one.holds for one in there]
    if not any(one is not None for one in held):
        return OPEN
    if all(held):
        return CONFIRMED if len(there) == len(findings) else OPEN
    return REFUTED if all(one is False for one in held) else DEPENDS


def conditions(findings: list[Finding]) -> str:
    """The conditions where it holds and where not, and what is missing, in words."""
    found = []
    for one in findings:
        if one.missing:
            found.append(f"missing: {one.missing}")
            continue
        number = "" if one.value is None else f" {number_of(one)}"
        why = f" ({one.undecided})" if one.undecided else ""
        note = f" [{one.note}]" if one.note else ""
        found.append(f"{word(one)}{why}: {one.condition}{number}{note}")
    return "; ".join(found)


def word(one: Finding) -> str:
    """What a settled finding says of its claim."""
    if one.missing:
        return "missing"
    if one.in_part:
        return "holds in part"
    return {True: "holds", False: "fails", None: "undecided"}[one.holds]


def number_of(one: Finding) -> str:
    """A finding's value in short form, with its interval if there is one."""
    form = ".1%" if one.unit.startswith(("share", "overhead")) else ".4g"
    if one.low is None or one.low == one.high:
        return f"{one.value:{form}}"
    level = "90 % " if "90 %" in one.unit else ""
    return f"{one.value:{form}} ({level}{one.low:{form}} to {one.high:{form}}, n={one.n})"

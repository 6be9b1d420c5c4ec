"""Verdicts: conf/claim/<topic>/*.yaml says what is claimed, what measures it, and by which rule."""

import inspect
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from bench.records import ledger
from bench.records.ledger import Rule
from bench.settings import targets
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.studies.results import Results
from bench.verdicts.ages import Ages
from bench.verdicts.finding import Finding

CONFIRMED, REFUTED, DEPENDS = "confirmed", "refuted", "depends"
OPEN = "not enough evidence"
# The folders of conf/claim/, in the order of the report.
TOPICS = ("cost", "memory", "distribution", "structure", "coefficients")


@dataclass(frozen=True)
class Claim:
    """One statement and what puts it to the test.

    statement: in English; source: who says so and where; topic: under which it is listed;
    measure: `_target_`, a function of bench/verdicts/evidence.py, and its arguments, or a list;
    rule: where the measured value has to lie for the statement to hold, {above: x}, {below: x} or
    {between: [x, y]}; none where the evidence carries its own verdict; remark: what a reader
    should know besides.
    """

    name: str
    statement: str
    source: str
    topic: str
    measure: list[dict[str, Any]]
    rule: dict[str, Any] = field(default_factory=dict)
    remark: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim; the number is the first finding's.

    note: what a reader has to know of the verdict as a whole; it leads the condition, too.
    """

    claim: Claim
    verdict: str
    findings: list[Finding]
    condition: str
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """As results/verdicts.json has it."""
        first = next((f for f in self.findings if f.value is not None), Finding(""))
        return {
            "claim": self.claim.name,
            "statement": self.claim.statement,
            "source": self.claim.source,
            "topic": self.claim.topic,
            "verdict": self.verdict,
            **{key: getattr(first, key) for key in ("value", "low", "high", "n", "unit")},
            "condition": self.condition,
            "note": self.note,
            "findings": [asdict(f) for f in self.findings],
            "records": sorted({file for f in self.findings for file in f.records}),
        }


def load() -> list[Claim]:
    """All claims, by topic and name, which no two of them share.

    Raises UserError for a file that is no claim, and for one that lies in no topic's folder.
    """
    files: dict[str, Path] = {}
    for file in sorted((CONF / "claim").rglob("*.yaml")):
        if file.stem in files:
            both = " and ".join(
                one.relative_to(CONF.parent).as_posix() for one in (files[file.stem], file)
            )
            raise UserError(f"{both}: two claims of one name")
        files[file.stem] = file
    found = [read(file) for file in files.values()]
    return sorted(found, key=lambda claim: (TOPICS.index(claim.topic), claim.name))


def read(file: Path) -> Claim:
    """The claim of a file in its topic's folder.

    Raises UserError naming what it has too much or too little of.
    """
    topic = file.parent.name
    where = f"conf/claim/{topic}/{file.name}"
    if topic not in TOPICS:
        raise UserError(f"{where}: must lie in a topic's folder: {', '.join(TOPICS)}")
    try:
        block: Any = OmegaConf.to_container(OmegaConf.load(file))
    except YAMLError as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from None
    if not isinstance(block, dict):
        raise UserError(f"{where}: must have keys, not items")
    known = {f.name for f in fields(Claim)} - {"name", "topic"}
    for key in block.keys() - known:
        raise UserError(f"{where}: {key}: accepted are {', '.join(sorted(known))}")
    for key in ("statement", "source", "measure"):
        if not block.get(key):
            raise UserError(f"{where}: {key} is missing")
    measure = block["measure"]
    block["measure"] = measure if isinstance(measure, list) else [measure]
    for one in block["measure"]:
        _check_measure(where, one)
    _check_rule(where, block.get("rule", {}))
    return Claim(name=file.stem, topic=topic, **block)


def _check_measure(where: str, measure: Any) -> None:
    if not isinstance(measure, dict) or "_target_" not in measure:
        raise UserError(f"{where}: measure needs _target_, e.g. bench.verdicts.evidence.check")
    arguments = {k: v for k, v in measure.items() if k != "_target_"}
    try:
        inspect.signature(targets.find(measure["_target_"])).bind(None, **arguments)
    except (ImportError, ValueError, TypeError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"{where}: measure {measure['_target_']}: {said}") from None


def _check_rule(where: str, rule: Any) -> None:
    match rule:
        case {} if not rule:
            return
        case {"above": float() | int()} | {"below": float() | int()} if len(rule) == 1:
            return
        case {"between": [float() | int() as low, float() | int() as high]} if low < high:
            return
    accepted = "{above: x}, {below: x} or {between: [low, high]}"
    raise UserError(f"{where}: rule={rule}: accepted are {accepted}")


def rules() -> list[Rule]:
    """What every claim measures and where the value has to lie, for results/rules.json."""
    return [Rule("claim", file, digest) for file in sorted((CONF / "claim").rglob("*.yaml"))]


def digest(text: str) -> str | None:
    """The hash of a claim's measure and rule, from its file."""
    found = ledger.block(text)
    return None if found is None else _digest(found.get("measure"), found.get("rule") or {})


def _digest(measure: Any, rule: dict[str, Any]) -> str | None:
    """By the names of functions: a move of their module changes no rule."""
    every = measure if isinstance(measure, list) else [measure]
    if not all(isinstance(one, dict) and "_target_" in one for one in every):
        return None
    named = [one | {"_target_": one["_target_"].rpartition(".")[2]} for one in every]
    return ledger.digest({"measure": named, "rule": rule})


def judge(claim: Claim, results: Results, ages: Ages | None = None) -> Verdict:
    """Measure what the claim names and apply its rule.

    Confirmed or refuted where all conditions that could be decided agree and none is undecided,
    depends where they do not or where one holds in part itself, not enough evidence where none is
    decided. Conditions without records are named and left aside. A rule that is younger than its
    records decides nothing until there are new ones: ages, where given, say so.
    """
    findings = []
    for measure in claim.measure:
        arguments = {k: v for k, v in measure.items() if k != "_target_"}
        findings += targets.find(measure["_target_"])(results, **arguments)
    there = [f for f in findings if f.missing is None]
    held = [holds(f, claim.rule) for f in there]
    in_part = any(f.in_part for f in there)
    found = DEPENDS if in_part else combined(held)
    note = age(claim, findings, ages) if ages else ""
    said = "; ".join(filter(None, (note, conditions(findings, claim.rule))))
    return Verdict(claim, found, findings, said, note)


def age(claim: Claim, findings: list[Finding], ages: Ages) -> str:
    """That a verdict's rule, or the experiment's declaration, is younger than its records."""
    own = _digest(claim.measure, claim.rule)
    experiments = {one["experiment"] for one in claim.measure if "experiment" in one}
    studies = {name: ledger.of_experiment(name) for name in experiments}
    files = sorted({file for one in findings for file in one.records})
    return ages.note(own, studies, files)


def holds(finding: Finding, rule: dict[str, Any]) -> bool | None:
    """Whether the claim holds by a finding; None where that is undecided.

    Its whole interval has to lie where the rule says, or wholly outside.
    """
    if finding.holds is not None or finding.in_part or finding.undecided or not rule:
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


def combined(held: list[bool | None]) -> str:
    if not any(h is not None for h in held):
        return OPEN
    if all(held):
        return CONFIRMED
    return REFUTED if all(h is False for h in held) else DEPENDS


def conditions(findings: list[Finding], rule: dict[str, Any]) -> str:
    """Where it holds and where not, and what is missing, in words."""
    found = []
    for one in findings:
        if one.missing:
            found.append(f"missing: {one.missing}")
            continue
        number = "" if one.value is None else f" {number_of(one)}"
        why = f" ({one.undecided})" if one.undecided else ""
        note = f" [{one.note}]" if one.note else ""
        found.append(f"{word(one, rule)}{why}: {one.condition}{number}{note}")
    return "; ".join(found)


def word(one: Finding, rule: dict[str, Any]) -> str:
    """What a finding says of its claim."""
    if one.missing:
        return "missing"
    if one.in_part:
        return "holds in part"
    return {True: "holds", False: "fails", None: "undecided"}[holds(one, rule)]


def number_of(one: Finding) -> str:
    """A finding's value, short, with its interval where it has one."""
    form = ".1%" if one.unit.startswith(("share", "overhead")) else ".4g"
    if one.low is None or one.low == one.high:
        return f"{one.value:{form}}"
    return f"{one.value:{form}} ({one.low:{form}} to {one.high:{form}}, n={one.n})"

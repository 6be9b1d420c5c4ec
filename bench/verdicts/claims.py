"""Claims: conf/claim/<topic>/*.yaml states each claim, its measure and its rule."""

import inspect
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from bench.records import ledger
from bench.records.ledger import Rule
from bench.settings import targets
from bench.settings.errors import UserError
from bench.settings.schema import CONF

# The folders of conf/claim/, in the order of the report.
TOPICS = ("cost", "memory", "distribution", "structure", "training", "coefficients")


@dataclass(frozen=True)
class Claim:
    """One statement and its test.

    statement: in English; source: who states it and where; topic: the heading that lists it;
    measure: `_target_`, a function of bench/verdicts/evidence.py, and its arguments, or a list of
    these; rule: the range for the measured value in which the statement holds, {above: x}, {below:
    x} or {between: [x, y]}; none if the evidence carries its own verdict; remark: additional
    information for readers; theorem: only a false theorem could refute the statement, so its check
    is one of the code, and it does not count; denies: the claim that states the opposite, instead
    of measure and rule: one comparison decides both, against one of them.
    """

    name: str
    statement: str
    source: str
    topic: str
    measure: list[dict[str, Any]] = field(default_factory=list)
    rule: dict[str, Any] = field(default_factory=dict)
    remark: str = ""
    theorem: bool = False
    denies: str | None = None


def load() -> list[Claim]:
    """All claims by topic and name; names are unique.

    A claim that denies another has that one's measure and rule. Raises UserError for a file that is
    no claim, and for one outside the topics' folders.
    """
    files: dict[str, Path] = {}
    for file in sorted((CONF / "claim").rglob("*.yaml")):
        if file.stem in files:
            both = " and ".join(
                one.relative_to(CONF.parent).as_posix() for one in (files[file.stem], file)
            )
            raise UserError(f"{both}: two claims of one name")
        files[file.stem] = file
    read_ = {name: read(file) for name, file in files.items()}
    found = [_settled(claim, read_) for claim in read_.values()]
    return sorted(found, key=lambda claim: (TOPICS.index(claim.topic), claim.name))


def _settled(claim: Claim, known: dict[str, Claim]) -> Claim:
    if claim.denies is None:
        return claim
    other = known.get(claim.denies)
    if other is None or other.denies:
        where = f"conf/claim/{claim.topic}/{claim.name}.yaml"
        raise UserError(f"{where}: denies={claim.denies}: must be a claim with a measure")
    return replace(claim, measure=other.measure, rule=other.rule)


def read(file: Path) -> Claim:
    """The claim in a file of its topic's folder.

    Raises UserError naming missing or superfluous keys.
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
    denies = block.get("denies")
    for key in ("statement", "source", *(() if denies else ("measure",))):
        if not block.get(key):
            raise UserError(f"{where}: {key} is missing")
    if denies and (block.get("measure") or block.get("rule")):
        raise UserError(
            f"{where}: denies={denies}: has that one's measure and rule, none of its own"
        )
    measure = block.get("measure") or []
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
    """The measure and rule of every claim, for results/rules.json."""
    every = (Rule("claim", file, digest) for file in sorted((CONF / "claim").rglob("*.yaml")))
    return [rule for rule in every if rule.now]  # a claim that denies another has no rule


def digest(text: str) -> str | None:
    """The hash of a claim's measure and rule, from its file."""
    found = ledger.block(text)
    return None if found is None else rule_digest(found.get("measure"), found.get("rule") or {})


def rule_digest(measure: Any, rule: dict[str, Any]) -> str | None:
    """The hash uses the names of functions: moving their module changes no rule."""
    every = measure if isinstance(measure, list) else [measure]
    if not all(isinstance(one, dict) and "_target_" in one for one in every):
        return None
    named = [one | {"_target_": one["_target_"].rpartition(".")[2]} for one in every]
    return ledger.digest({"measure": named, "rule": rule})

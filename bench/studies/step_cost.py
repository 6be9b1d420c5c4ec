"""What a step of an arm costs, measured alone: from a step benchmark, results/steps/<name>.json."""

from typing import Any

from bench.settings.schema import Settings
from bench.studies.differing import leaves
from bench.studies.study import Study

TUNED = ("lr", "betas", "eps", "weight_decay", "momentum")  # of a role; none changes a step's cost

GROUPS = ("optimizer", "qkv", "orthogonalizer")  # of the words that change a step


def relative(found: dict[str, Any], study: Study, arm: str, units: int) -> float | None:
    """An arm's step relative to AdamW's at so many tokens (images) a step; None if not measured."""
    one = found["optimizers"].get(label(study, arm)) or {}
    points = one.get("overhead") or ()
    at = (point for point in points if point["units"] == units and point["measured"])
    return next((1 + point["value"] for point in at), None)


def seconds(found: dict[str, Any], study: Study, arm: str, units: int) -> float | None:
    """Seconds of an arm's whole step: its relative cost, times AdamW's step."""
    adamw, cost = found["optimizers"][found["reference"]], relative(found, study, arm, units)
    passes = adamw.get("forward_backward_ms") or ()
    whole = (one["median"] + adamw["step_ms"]["median"] for one in passes if one["units"] == units)
    milliseconds = next(whole, None)
    return None if cost is None or milliseconds is None else cost * milliseconds / 1e3


def other(found: dict[str, Any], study: Study, arm: str, settings: Settings) -> str | None:
    """The first setting that makes an arm's step cost something else than the timed one."""
    timed = (found.get("config") or {}).get("optimizers") or {}
    theirs = timed.get(label(study, arm)) or {"roles": {}}
    there = {"train.precision": found["precision"]} | _roles(theirs)
    here = {"train.precision": settings.train.precision} | _roles(settings.optimizer)
    for key in here | there:
        if here.get(key) != there.get(key):
            return f"{key}={here.get(key, 'null')}, timed with {there.get(key, 'null')} before"
    return None


def _roles(optimizer: dict[str, Any]) -> dict[str, str]:
    """What decides the cost of an optimizer's roles, by full names."""
    roles = {
        role: {key: value for key, value in own.items() if key not in TUNED}
        for role, own in optimizer["roles"].items()
    }
    return leaves({"optimizer": {"roles": roles}})


def label(study: Study, arm: str) -> str:
    """How a step benchmark names an arm: its optimizer, then what its words change of a step."""
    name = next(word for word in study.arms[arm] if word.startswith("optimizer="))
    changes = [w for w in study.arms[arm] if w != name and w.lstrip("+").startswith(GROUPS)]
    return " ".join([name.partition("=")[2], *changes])

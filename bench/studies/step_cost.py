"""What a step of an arm costs, measured alone: from a step benchmark, results/steps/<name>.json."""

from typing import Any

from bench.studies.study import Study


def relative(found: dict[str, Any], study: Study, arm: str, units: int) -> float | None:
    """An arm's step relative to AdamW's at so many tokens (images) a step; None if not measured."""
    one = found["optimizers"].get(optimizer(study, arm)) or {}
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


def optimizer(study: Study, arm: str) -> str:
    """The optimizer that an arm's words name; a step benchmark has it under this label."""
    label = next(word for word in study.arms[arm] if word.startswith("optimizer="))
    return label.partition("=")[2]

"""Assay sensitivity: whether a design tells a known difference apart, before it calls arms equal.

Two arms can look alike because they are, or because nothing would differ under that design. Only a
control tells: the same design with a difference that is there (ICH E10, 2000, section 1.5). Here it
is AdamW with 7 % fewer steps, a little more than the margin, which is what 5 % of them are worth.
"""

from collections.abc import Iterable
from typing import Any

from bench.studies.comparison import Comparison
from bench.studies.difference import LEVEL

EXPERIMENT, ARM = "controls", "fewer_steps"


def doubt(one: Comparison, controls: Iterable[Comparison]) -> str | None:
    """Why an equality under this condition shows nothing; None if a control was told apart.

    controls: comparisons of `EXPERIMENT`; those of the same model, data, steps and batch count.
    """
    own = regime(one)
    found = [
        arm.difference
        for control in controls
        if own and regime(control) == own and (arm := control.arm(ARM)) and arm.difference
    ]
    if not found:
        return (
            f"no control shows that 7 % fewer steps are told apart here (experiment={EXPERIMENT})"
        )
    p = min(difference.p for difference in found)
    return None if p < LEVEL else f"7 % fewer steps of AdamW are not told apart either (p={p:.2g})"


def regime(one: Comparison) -> tuple[Any, ...] | None:
    """What the baseline trains, on what, and how long; None without its runs."""
    arm = one.arm(one.study.baseline)
    if arm is None:
        return None
    made = arm.runs[0].record
    data = made["config"].get("data") or {}
    per_step = made.get("tokens_per_step") or made.get("images_per_step")
    return made["model"], made["parameters"], data.get("name"), made["steps"], per_step

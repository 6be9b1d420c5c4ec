"""How a condition's AdamW compares with the reference lines, in words."""

from bench.studies import lines
from bench.studies.comparison import Comparison

DECLARED = "early training"  # what an experiment older than the lines says among its limits
UNKNOWN = "Reference lines: not known."


def early(one: Comparison) -> str | None:
    """Why a condition's differences allow no conclusion; None if they do.

    Without lines an experiment's word counts.
    """
    if one.lines is None:
        declared = DECLARED in (one.study.limits or "")
        return "early training, as the experiment's limits say" if declared else None
    arm = lines.judged(one.arms, one.study.baseline)
    limit = one.lines.limit
    if not one.early or arm is None or limit is None:
        return None
    numbers = f"{arm.test_loss.mean:.3f} against {limit['loss']:.3f}"
    return f"early training: {arm.name} ends above the {limit['name']} ({numbers})"


def notes(one: Comparison) -> list[str]:
    """What the lines are, and where AdamW's loss lies among them."""
    if one.lines is None:
        return [UNKNOWN, *([judged_by_none(why)] if (why := early(one)) else [])]
    about = one.lines.content
    found = [
        f"Reference lines: {about['model']}, of the {about['seen']:,} of {about['there']:,} "
        f"training {about['unit']} that a run sees, on the same test part."
    ]
    per_token = about["bytes_per_token"]
    found += [f"Bits per byte: {per_token:.3f} bytes a token."] if per_token else []
    said = standing(one)
    return [*found, said] if said else found


def standing(one: Comparison) -> str | None:
    """A sentence on each line that matters: the limit of early training, and the best line."""
    arm = lines.judged(one.arms, one.study.baseline)
    if one.lines is None or arm is None:
        return None
    if why := early(one):
        return judged_by_none(why)
    best = one.lines.best
    side = "above" if arm.test_loss.mean > best["loss"] else "below"
    return (
        f"{arm.name} ends {side} the best reference line ({best['name']}, "
        f"{best['loss']:.3f}; {arm.name} {arm.test_loss.mean:.3f})."
    )


def judged_by_none(why: str) -> str:
    return f"{why[0].upper()}{why[1:]}; which optimizer is better is not judged by it."

"""The user's request: which part of which study, and overrides of all its runs."""

from dataclasses import dataclass

from bench.settings.errors import UserError
from bench.studies import study

PARTS = ("stage", "condition", "arm")  # as overrides they select a part of the study


def asked(arguments: list[str]) -> bool:
    """Whether a command line requests a whole study, not one of its sweeps or help."""
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    flags = {word for word in arguments if word.startswith("-")}
    sweep = "-m" in flags and all(part in given for part in PARTS)
    other = flags - {"-m", "--multirun"}
    return given.get("experiment") in study.declared() and not other and not sweep


@dataclass(frozen=True)
class Request:
    """The user's request: which part of which study, and overrides of all its runs.

    rate: for all final runs, instead of the tuned rates.
    """

    experiment: str
    stage: str | None
    condition: str | None
    arm: str | None
    rate: float | None
    overrides: tuple[str, ...]


def read(arguments: list[str]) -> Request:
    """Raises UserError for a seed or a sweeper, which the study sets itself, and a bad rate."""
    words = [word for word in arguments if not word.startswith("-")]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if "seed" in given:
        raise UserError(f"seed={given['seed']}: use study.tune_seeds=[…] and study.final_seeds=[…]")
    if "hydra/sweeper" in given:
        sweeper = given["hydra/sweeper"]
        raise UserError(f"hydra/sweeper={sweeper}: a study chooses its runs itself; leave it out")
    typed = given.get("optimizer.lr_scale")
    try:
        rate = float(typed) if typed else None
    except ValueError:
        raise UserError(f"optimizer.lr_scale={typed}: in a study, one rate for all runs") from None
    aside = ("experiment", "optimizer.lr_scale", *PARTS)
    return Request(
        given["experiment"],
        given.get("stage"),
        given.get("condition"),
        given.get("arm"),
        rate,
        tuple(word for word in words if word.split("=", 1)[0] not in aside),
    )

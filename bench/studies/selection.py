"""Selects runs by a typed name: a cell, its beginning, a pattern, or an arm of an experiment."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from bench.records.archive import Run
from bench.settings.errors import UserError
from bench.studies.study import FINAL

NEAR = 4  # names listed in the reply to a mistake


def two(typed: str) -> tuple[str, str]:
    """The names in `[A,B]`. Raises UserError unless there are two."""
    words = typed.strip().removeprefix("[").removesuffix("]").split(",")
    names = [word.strip().strip("'\"") for word in words]
    if len(names) != 2 or not all(names):
        example = "compare=[gpt2_nano-adamw,gpt2_nano-hybrid*]"
        raise UserError(f"compare={typed}: needs two names, e.g. {example}")
    return names[0], names[1]


def chosen(runs: Iterable[Run], name: str) -> list[Run]:
    """The runs that a name selects, each cell once.

    The name is a cell; the beginning of one (adam: not adamw, if both exist), which leaves out the
    experiments' runs if there are others; a pattern with * ? or [] on names of cells; or
    experiment/arm, experiment/condition/arm for the final runs of an arm.
    Raises UserError with the typed name and similar names.
    """
    every = list(runs)
    found = _of_arm(every, name) if "/" in name else _of_cells(every, name)
    cells = {run.record["cell"]: run for run in reversed(found)}
    if not cells:
        known = list(dict.fromkeys(_names(every, "/" in name)))
        raise UserError(f"compare: {name}: no run of this name; {nearest(name, known)}")
    return sorted(cells.values(), key=lambda run: (run.record["seed"], run.record["cell"]))


def _of_cells(runs: list[Run], name: str) -> list[Run]:
    exact = [run for run in runs if run.record["cell"] == name]
    if exact:
        return exact
    if any(sign in name for sign in "*?["):
        return [run for run in runs if fnmatchcase(run.record["cell"], name)]
    begun = [run for run in runs if run.record["cell"].startswith(name)]
    begun = [run for run in begun if run.record["cell"].startswith(f"{name}-")] or begun
    return [run for run in begun if run.experiment is None] or begun


def _of_arm(runs: list[Run], name: str) -> list[Run]:
    experiment, _, rest = name.partition("/")
    own = [run for run in runs if run.experiment == experiment and run.stage in (FINAL, None)]
    found = [run for run in own if rest in (run.arm, f"{run.condition}/{run.arm}")]
    under = sorted({str(run.condition) for run in found})
    if len(under) > 1:
        raise UserError(
            f"compare: {name}: runs under several conditions; e.g. {experiment}/{under[0]}/{rest}"
            f" (or {', '.join(under[1:])})"
        )
    return found


def _names(runs: list[Run], arms: bool) -> Iterable[str]:
    """The names that can be typed: arms of experiments, or cells and their beginnings."""
    for run in runs:
        cell = run.record["cell"]
        if arms and run.experiment and run.arm:
            yield f"{run.experiment}/{run.arm}"
        elif not arms:
            yield cell.partition(f"-s{run.record['seed']}-")[0]
            yield cell


def nearest(name: str, known: list[str]) -> str:
    """Names that may be meant, or else some of those that exist."""
    plain = name.strip("*?")
    near = difflib.get_close_matches(plain, known, n=NEAR, cutoff=0.5)
    near = near or [one for one in known if plain and plain in one][:NEAR]
    if near:
        return f"perhaps {' or '.join(near)}"
    if not known:
        return "there are none here"
    more = f" and {len(known) - NEAR} more" if len(known) > NEAR else ""
    return f"there are {', '.join(known[:NEAR])}{more}"

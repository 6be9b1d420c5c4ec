"""Finds what `_target_` in a settings file names, including code that has moved."""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from bench.settings.errors import UserError
from bench.settings.mistakes import one_line
from bench.settings.schema import Settings

# Modules that moved: their path when the first records were made, and their path now. A cell's hash
# uses the old name, so that a move renames no cell; settings files may use either.
MOVED = {
    "bench.schedule": "bench.training.schedule",
    "bench.evidence": "bench.verdicts.evidence",
    "bench.communication_evidence": "bench.verdicts.communication",
}


# The facts of the data that a model's builder gets, by task.
FACTS = {"text": ("vocab_size",), "images": ("image_size", "channels", "classes", "patch_size")}


def find(target: str) -> Callable:
    """The function or class. Raises ImportError, in one line, if there is none."""
    parts = _renamed(target, MOVED).split(".")
    try:
        found: Any = importlib.import_module(parts[0])
        for depth, part in enumerate(parts[1:], 2):
            if isinstance(found, ModuleType) and not hasattr(found, part):
                importlib.import_module(".".join(parts[:depth]))
            found = getattr(found, part)
    except Exception as error:  # a user's own module may raise anything
        known = isinstance(error, ImportError | AttributeError | ValueError)
        said = str(error) if known else f"{type(error).__name__}: {error}"
        raise ImportError(one_line(said)[:300]) from None
    if not callable(found):
        raise ImportError(f"is a {type(found).__name__}, which cannot be called")
    return found


def name(target: str) -> str:
    """The name of a target in a cell's hash; a move does not change it."""
    return _renamed(target, {now: before for before, now in MOVED.items()})


def _renamed(target: str, names: dict[str, str]) -> str:
    module, dot, last = target.rpartition(".")
    return names.get(module, module) + dot + last


def schedule_factor(settings: Settings):
    """(step, progress) -> the factor on every rate."""
    function = find(settings.schedule["_target_"])
    block = _arguments(settings.schedule, "name")
    return lambda step, progress: function(step, progress, **block)


def check_schedule(settings: Settings) -> None:
    """Raise UserError unless the schedule can be called and gives a factor."""
    try:
        factor = schedule_factor(settings)(0, 0.0)
        if not isinstance(factor, int | float) or not factor >= 0:
            raise ValueError(f"gives {factor!r} for the first step, no factor of a rate")
    except Exception as error:
        raise UserError(
            f"schedule._target_={settings.schedule['_target_']}: {one_line(str(error))[:300]}; "
            "must be a function of a step and a progress, as bench.training.schedule.wsd"
        ) from None


def model_builder(settings: Settings):
    """A function from the data's facts to the model, as `model._target_` builds it."""
    build = find(settings.model["_target_"])
    arguments = _arguments(settings.model, "name", "task", "tokenizer")
    return lambda facts: build(**arguments, **facts)


def check_model(settings: Settings) -> None:
    """Raise UserError unless the builder can be called with the model's settings."""
    target = settings.model["_target_"]
    asked = [*_arguments(settings.model, "name", "task", "tokenizer")]
    asked += FACTS[settings.model["task"]]
    try:
        inspect.signature(find(target)).bind(**dict.fromkeys(asked))
    except (ImportError, TypeError, ValueError) as error:  # ValueError: it has no signature
        raise UserError(
            f"model._target_={target}: {one_line(str(error))[:300]}; must be a function that "
            f"builds a model from {', '.join(asked)}"
        ) from None


def _arguments(block: dict[str, Any], *beside: str) -> dict[str, Any]:
    """The arguments that a target is called with."""
    return {key: value for key, value in block.items() if key not in ("_target_", *beside)}

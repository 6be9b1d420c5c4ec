"""What `_target_` in a settings file names, wherever its code lies now."""

from collections.abc import Callable

from hydra.utils import get_method

from bench.settings.schema import Settings

# Modules that moved: where they were when the first records were made, and where they are. By the
# old name a cell's hash knows them, so that a move renames no cell; settings files may use either.
MOVED = {
    "bench.schedule": "bench.training.schedule",
    "bench.evidence": "bench.verdicts.evidence",
    "bench.communication_evidence": "bench.verdicts.communication",
}


def find(target: str) -> Callable:
    """The function or class. Raises ImportError or ValueError (Hydra's) where there is none."""
    return get_method(_renamed(target, MOVED))


def name(target: str) -> str:
    """The name of a target in a cell's hash: the same before and after a move."""
    return _renamed(target, {now: before for before, now in MOVED.items()})


def _renamed(target: str, names: dict[str, str]) -> str:
    module, dot, last = target.rpartition(".")
    return names.get(module, module) + dot + last


def schedule_factor(settings: Settings):
    """(step, progress) -> the factor on every rate."""
    block = {k: v for k, v in settings.schedule.items() if k not in ("name", "_target_")}
    function = find(settings.schedule["_target_"])
    return lambda step, progress: function(step, progress, **block)


def model_builder(settings: Settings):
    """facts of the data -> the model, as `model._target_` builds it."""
    block = settings.model
    arguments = {k: v for k, v in block.items() if k not in ("name", "task", "tokenizer")}
    build = find(arguments.pop("_target_"))
    return lambda facts: build(**arguments, **facts)

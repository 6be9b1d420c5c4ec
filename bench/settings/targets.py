"""What `_target_` in a settings file names, wherever its code lies now."""

from collections.abc import Callable

from hydra.utils import get_method

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

"""Finds values of wrong kinds that Python accepts: nesterov=5, betas=[0.9], strict=perhaps."""

import inspect
import typing
from typing import Any

from bench.settings.errors import UserError

OURS = ("torch.optim.", "optimizers.")  # classes whose defaults are known early


def compare_kinds(path: str, value: Any, known: Any) -> None:
    """Raise UserError if a shipped file has a switch or mapping where the settings have none."""
    if isinstance(value, str) and value.startswith("${"):
        return  # resolved later
    if isinstance(known, bool) and not isinstance(value, bool):
        raise UserError(f"{path}={value}: must be true or false")
    if isinstance(known, dict):
        if not isinstance(value, dict):
            raise UserError(f"{path}={value}: must be a mapping, with {', '.join(map(str, known))}")
        for key, inner in known.items():
            if key in value:
                compare_kinds(f"{path}.{key}", value[key], inner)


def check(path: str, rule: dict[str, Any]) -> None:
    """Compare an optimizer's arguments with the defaults of its class, if these are known.

    Raises UserError for a value that is no switch or no number where the default is one, and for a
    list of numbers with a different length.
    """
    if not rule["_target_"].startswith(OURS):
        return
    from optimizers.routing import locate

    try:
        cls = locate(rule["_target_"])
        hints = typing.get_type_hints(cls.__init__)
    except (ImportError, ValueError, NameError):  # reported when the run builds it
        return
    for key, parameter in inspect.signature(cls).parameters.items():
        if key in rule:
            wanted = _wanted(parameter.default, hints.get(key), rule[key])
            if wanted:
                raise UserError(f"{path}.{key}={rule[key]}: must be {wanted}")


def _wanted(default: Any, hint: Any, value: Any) -> str | None:
    """What is accepted if the value has a different kind than the default; otherwise None."""
    accepted = typing.get_args(hint) or (hint,)
    if value is None and (default is None or type(None) in accepted):
        return None
    if isinstance(default, bool) or (default is None and set(accepted) == {bool, type(None)}):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        return None if is_number(value) else "a number"
    if isinstance(default, tuple) and default and all(map(is_number, default)):
        fits = isinstance(value, list) and len(value) == len(default)
        there = fits and all(map(is_number, value))
        return None if there else f"{len(default)} numbers, e.g. {list(default)}"
    return None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

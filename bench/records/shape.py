"""Checks that a file has the shape that its readers rely on, before anything reads it.

A shape is a function of a value. It returns None if the value is right, and otherwise where and why
it is not, as in ".curve[3].val_loss: must be a number, not 'x'".
"""

import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bench.records import files

Shape = Callable[[Any], str | None]
LARGEST = 1e100  # limit for numbers used in computations: the square is still a number


def read(file: Path, shape: Shape) -> Any:
    """The content of a JSON file (never a text), or a text saying why it cannot be used."""
    try:
        value = files.read_json(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "broken: not JSON"
    fault = shape(value)
    return value if fault is None else fault.lstrip(".: ")


def mapping(needed: Mapping[str, Shape], may: Mapping[str, Shape] | None = None) -> Shape:
    """An object with required keys and optional ones; other keys are ignored."""

    def fault(value: Any) -> str | None:
        if not isinstance(value, dict):
            return _not(value, "an object")
        missing = [key for key in needed if key not in value]
        if missing:
            return f": without {', '.join(missing)}"
        for key, shape in (*needed.items(), *(may or {}).items()):
            if key in value and (inner := shape(value[key])):
                return f".{key}{inner}"
        return None

    return fault


def named(shape: Shape, least: int = 0) -> Shape:
    """An object with any keys, whose values all have one shape."""

    def fault(value: Any) -> str | None:
        if not isinstance(value, dict) or len(value) < least:
            return _not(value, "an object" if not least else "an object with something in it")
        for key, item in value.items():
            if inner := text(key) or shape(item):
                return f".{short(key)}{inner}"
        return None

    return fault


def each(shape: Shape, least: int = 0, most: int | None = None) -> Shape:
    """A list whose items all have one shape."""

    def fault(value: Any) -> str | None:
        if not isinstance(value, list):
            return _not(value, "a list")
        if len(value) < least or (most is not None and len(value) > most):
            return f": a list of {len(value)}"
        for at, item in enumerate(value):
            if inner := shape(item):
                return f"[{at}]{inner}"
        return None

    return fault


def nullable(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def both(first: Shape, then: Shape) -> Shape:
    """Two shapes; the second may rely on the first."""
    return lambda value: first(value) or then(value)


def one_of(words: Collection[str]) -> Shape:
    def fault(value: Any) -> str | None:
        there = isinstance(value, str) and value in words
        return None if there else _not(value, f"one of {', '.join(words)}")

    return fault


def text(value: Any) -> str | None:
    """A text without surrogate halves, which cannot be written to a file."""
    if not isinstance(value, str):
        return _not(value, "text")
    return _not(value, "text") if any("\ud800" <= sign <= "\udfff" for sign in value) else None


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else _not(value, "true or false")


def number(value: Any) -> str | None:
    return None if _is_number(value) else _not(value, "a number")


def positive(value: Any) -> str | None:
    there = _is_number(value) and value >= 1 / LARGEST
    return None if there else _not(value, "a number above 0")


def amount(value: Any) -> str | None:
    return None if _is_number(value) and value >= 0 else _not(value, "a number from 0 on")


def rate(value: Any) -> str | None:
    """A multiple of any size: runs are tried with 1e300, too."""
    there = isinstance(value, int | float) and not isinstance(value, bool)
    fits = there and abs(value) < 2**1023 and math.isfinite(value) and value >= 0
    return None if fits else _not(value, "a number from 0 on")


def count(value: Any) -> str | None:
    there = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return None if there else _not(value, "a whole number, 0 or above")


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -LARGEST <= value <= LARGEST  # false for nan, too


def _not(value: Any, wanted: str) -> str:
    return f": must be {wanted}, not {short(value)}"


def short(value: Any) -> str:
    """A value in at most 40 printable ASCII characters."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        return "a huge number"
    said = ascii(value) if isinstance(value, str) else json.dumps(value)
    return said if len(said) <= 40 else f"{said[:37]}..."

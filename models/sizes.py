"""Checks of the sizes that a user types; each message names the setting as it is typed."""

import math


def check_positive(group: str, **sizes: int) -> None:
    """Raise ValueError for the first setting `group.name` that is not a whole number from 1 up."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{group}.{name}={size} is not a whole number of at least 1")


def check_divides(part: str, parts: int, whole: str, total: int) -> None:
    """Raise ValueError unless the value of the setting `part` divides that of `whole`."""
    if total % parts:
        raise ValueError(f"{part}={parts}: {whole}={total} is not divisible by it")


def check_scale(name: str, scale: float) -> None:
    """Raise ValueError unless the scale is a number above 0."""
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise ValueError(f"{name}={scale} is not a number above 0")

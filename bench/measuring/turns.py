"""Taking turns: A B C, B C A, C A B, … in one process, so that drift affects all alike."""

from collections.abc import Callable
from typing import Any

Turn = Callable[[], Any]  # does its work once and returns its measurement


def rotated(names: list[str], round_number: int) -> list[str]:
    """The order in a round: each round begins one name further."""
    start = round_number % len(names)
    return names[start:] + names[:start]


def take(
    turns: dict[str, Turn],
    rounds: int,
    tick: Callable[[str], None],
    failed: Callable[[str, Exception], None],
) -> dict[str, list[Any]]:
    """Each turn's measurements in every round, after one warm-up round that is dropped.

    tick: called after every turn. A turn that raises is removed with all its measurements; `failed`
    is called, and may raise itself to end everything.
    """
    kept: dict[str, list[Any]] = {name: [] for name in turns}
    for number in range(-1, rounds):
        for name in rotated(list(turns), number + 1):
            if name not in kept:
                continue
            tick(f"round {number + 1}/{rounds}" if number >= 0 else "warming up")
            try:
                measured = turns[name]()
            except Exception as error:
                del kept[name]
                failed(name, error)
            else:
                if number >= 0:
                    kept[name].append(measured)
    return kept

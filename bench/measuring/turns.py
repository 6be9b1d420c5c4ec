"""Taking turns: A B C, B C A, C A B, … within one process, so that what drifts hits all alike."""

from collections.abc import Callable
from typing import Any

Turn = Callable[[], Any]  # does its work once and returns what it measured


def rotated(names: list[str], round_number: int) -> list[str]:
    """The order of a round: each begins one further."""
    start = round_number % len(names)
    return names[start:] + names[:start]


def take(
    turns: dict[str, Turn],
    rounds: int,
    tick: Callable[[str], None],
    failed: Callable[[str, Exception], None],
) -> dict[str, list[Any]]:
    """What each turn measured in every round, after one round that warms up and is not kept.

    tick: told of every turn taken. A turn that raises is out, with all it measured; `failed` is
    told, and may raise in its turn to end it all.
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

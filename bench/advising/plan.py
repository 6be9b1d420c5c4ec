"""What is measured in the time there is: which batches, and how often each takes its turn."""

SECONDS = 120.0  # that forward and backward may take, over all rounds
FEWEST, MOST = 3, 10  # rounds: for a spread; for an interval
SIZES = 3  # batches, for a line with a residual
SPARE = 0.9  # of the memory that is free, the part that is used


def sizes(asked: int, second: float, most: int | None = None) -> list[int]:
    """The batches to measure, in examples: the one asked for, its half and its quarter; halved
    until the fewest rounds of them fit into SECONDS, and at least 1, 2 and 3.

    second: what an example takes; most: examples that fit into memory, None for any number.
    """
    largest = asked
    while largest > SIZES and not _fits(_three(largest), second, most):
        largest = largest // 2
    return _three(largest)


def _three(largest: int) -> list[int]:
    """Three sizes up to the largest, or the three smallest with it."""
    if largest < 4:
        return sorted({1, 2, largest if largest > 2 else SIZES})
    return [largest // 4, largest // 2, largest]


def _fits(three: list[int], second: float, most: int | None) -> bool:
    return (FEWEST + 1) * sum(three) * second <= SECONDS and (most is None or three[-1] <= most)


def rounds(second: float) -> int:
    """How many rounds of so many seconds; one more warms up."""
    return max(FEWEST, min(MOST, int(SECONDS / second) - 1))


def keeps_states(parameters: int, arms: int, available: int) -> bool:
    """Whether every optimizer may keep its state from turn to turn: at most AdamW's, two fp32
    values a parameter, and as much again for what a step needs beside it."""
    return 8 * parameters * (arms + 2) < SPARE * available

"""Plans measurements for the available time: which batches, and how many rounds of turns."""

SECONDS = 120.0  # maximum for forward and backward over all rounds
FEWEST, MOST = 3, 10  # rounds: for a spread; for an interval
SIZES = 3  # batches, for a line with a residual
SPARE = 0.9  # share of the free memory that is used


def sizes(asked: int, second: float, most: int | None = None) -> list[int]:
    """The batches to measure, in examples: the requested one, its half and its quarter; all are
    halved until the fewest rounds of them fit into SECONDS, but they are at least 1, 2 and 3.

    second: seconds per example; most: examples that fit into memory, None for any number.
    """
    largest = asked
    while largest > SIZES and not _fits(_three(largest), second, most):
        largest = largest // 2
    return _three(largest)


def _three(largest: int) -> list[int]:
    """Three sizes up to the largest, or the three smallest including it."""
    if largest < 4:
        return sorted({1, 2, largest if largest > 2 else SIZES})
    return [largest // 4, largest // 2, largest]


def _fits(three: list[int], second: float, most: int | None) -> bool:
    return (FEWEST + 1) * sum(three) * second <= SECONDS and (most is None or three[-1] <= most)


def rounds(second: float) -> int:
    """How many rounds of this many seconds to take; one more warms up."""
    return max(FEWEST, min(MOST, int(SECONDS / second) - 1))


def keeps_states(parameters: int, arms: int, available: int) -> bool:
    """Whether memory can hold every optimizer's state from turn to turn: at most AdamW's, two fp32
    values per parameter, and the same again for the temporaries of a step."""
    return 8 * parameters * (arms + 2) < SPARE * available

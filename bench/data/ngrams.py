"""n-gram models of token ids: interpolated Kneser-Ney with modified discounts, in numpy.

Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (1998,
https://dash.harvard.edu/handle/1/25104739), section 3: three discounts per order, from its counts
of counts (equation 26). The highest order counts occurrences; lower orders count the distinct
tokens seen before an n-gram; below the lowest order is the uniform distribution.
"""

from dataclasses import dataclass

import numpy as np

# Discounts of counts of 1, 2, and 3 or more, as in KenLM (Heafield et al. 2013,
# https://aclanthology.org/P13-2121), if counts of counts give none between 0 and the count.
DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Table:
    """All n-grams of one order, each with a number; arrays are int64 (n-grams,).

    keys: ascending; the number of the context (all tokens but the last, in the table of the order
    below) times the vocabulary's size, plus the last token; seen: the number of occurrences;
    preceded: the number of distinct tokens seen before it (zeros in the highest order).
    """

    keys: np.ndarray
    contexts: np.ndarray
    seen: np.ndarray
    preceded: np.ndarray


def tables(ids: np.ndarray, follows: np.ndarray, vocab_size: int, orders: int) -> list[Table]:
    """The n-grams of a text, of orders 1 to `orders`.

    ids (tokens,): the text; follows (tokens,) bool: whether a token directly follows the one before
    it in `ids`; no n-gram crosses a position where it does not.
    """
    at = np.arange(len(ids))
    length = at - np.maximum.accumulate(np.where(follows, 0, at)) + 1  # of the context of a token
    found: list[Table] = []
    numbers = np.zeros(len(ids), dtype=np.int64)  # of the n-gram that ends at a token
    for order in range(1, orders + 1):
        ends = np.flatnonzero(length >= order)
        contexts = numbers[ends - 1] if order > 1 else 0
        keys, first, number, seen = np.unique(
            contexts * vocab_size + ids[ends].astype(np.int64),
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        if found:
            shorter = numbers[ends[first]]  # without the first token
            found[-1].preceded[:] = np.bincount(shorter, minlength=len(found[-1].keys))
        numbers = np.full(len(ids), -1)
        numbers[ends] = number
        found.append(Table(keys, keys // vocab_size, seen, np.zeros_like(seen)))
    return found


def probabilities(found: list[Table], windows: np.ndarray, vocab_size: int) -> list[np.ndarray]:
    """Probability of each token after those before it in its window, per order: (W, T) float64.

    windows: ids (W, T). If fewer tokens come before than an order needs, the highest order with
    enough tokens predicts.
    """
    windows = windows.astype(np.int64)
    lower = np.full(windows.shape, 1 / vocab_size)
    contexts = np.zeros(windows.shape, dtype=np.int64)
    size = 1  # of the table of contexts
    models: list[np.ndarray] = []
    for order, table in enumerate(found, start=1):
        entries = _look_up(table, contexts, windows, vocab_size)
        model = _interpolated(table, table.seen, size, contexts, entries, lower)
        if models:
            model[:, : order - 1] = models[-1][:, : order - 1]
        models.append(model)
        lower = _interpolated(table, table.preceded, size, contexts, entries, lower)
        contexts = np.pad(entries, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
        size = len(table.keys)
    return models


def losses(
    ids: np.ndarray, seen: np.ndarray, every: list[np.ndarray], vocab_size: int, orders: int
):
    """Nats per token of each order's model, on the windows of a text model's evaluation.

    ids (tokens,): the text, where seen (tokens,) bool marks the tokens for estimation; every:
    arrays of windows, ids (W, T); all but their first tokens are predicted. One list by order for
    each.
    """
    places = np.flatnonzero(seen)
    follows = np.diff(places, prepend=-2) == 1
    found = tables(ids[places], follows, vocab_size, orders)
    return [
        [float(-np.log(p[:, 1:]).mean()) for p in probabilities(found, windows, vocab_size)]
        for windows in every
    ]


def discounts(counts: np.ndarray) -> np.ndarray:
    """The discounts of a count of 0, 1, 2, and 3 or more: float64 (4,)."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=5)[1:5].tolist()
    if n1 and n2 and n3:
        share = n1 / (n1 + 2 * n2)
        own = [1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3]
        if all(0 < discount <= count for count, discount in enumerate(own, start=1)):
            return np.array([0, *own])
    return np.array([0, *DISCOUNTS])


def _look_up(table: Table, contexts: np.ndarray, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """The numbers of n-grams; -1 for one that was not seen."""
    keys = contexts * vocab_size + tokens
    places = np.searchsorted(table.keys, keys)
    there = (contexts >= 0) & (np.append(table.keys, -1)[places] == keys)
    return np.where(there, places, -1)


def _interpolated(
    table: Table,
    counts: np.ndarray,
    size: int,
    contexts: np.ndarray,
    entries: np.ndarray,
    lower: np.ndarray,
) -> np.ndarray:
    """Discounted counts, with the discounted mass given to the order below; all (W, T).

    size: of the table of contexts. A context without counts uses only the order below, and so does
    one that was not seen, whose number, -1, is that of an empty row at the end.
    """
    off = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(table.contexts, counts, minlength=size + 1)[contexts]
    taken = np.bincount(table.contexts, off, minlength=size + 1)[contexts]
    own = np.append(counts - off, 0)[entries]
    return np.where(total > 0, (own + taken * lower) / np.maximum(total, 1), lower)

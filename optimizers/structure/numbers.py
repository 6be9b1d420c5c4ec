"""The numbers that the probe gives to the outputs of linear maps, and what they stand for.

Each row of a weight has a number above zero, each head of an attention's result one below. The
numbers of rows rise by random steps, so that a sum of two (an adapter's output added to its
base's) or any other arithmetic does not give a number of something else.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EXACT = 2**24  # whole numbers that fp32 tells apart
STEP = 8  # numbers rise by less than this
FIRST = 2**12  # above what is met otherwise (masks, cosines)

Sources = list[tuple[int, int]]  # (weight's id, row) of every entry of a head


@dataclass(frozen=True)
class Heads:
    """The heads of a q, k or v; `index` says which of them lies where (..., in each batch)."""

    sources: list[Sources]
    index: Tensor


class Numbers:
    """Gives numbers and knows them again."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.last = FIRST
        self.given: dict[int, tuple[int, int]] = {}  # (weight, row) by number
        self.heads: list[tuple[Any, int]] = []  # (attention, head) by -number - FIRST

    def of_rows(self, weight: int, rows: list[int]) -> Tensor:
        """A number for each row of a weight (its id)."""
        steps = torch.randint(1, STEP, (len(rows),), generator=self.random).cumsum(0)
        if self.last + STEP * len(rows) >= EXACT:  # the older half is forgotten
            self.given = {n: row for n, row in self.given.items() if n > EXACT // 2}
            self.last = FIRST
        numbers = self.last + steps
        self.last = int(numbers[-1])
        self.given.update(zip(numbers.tolist(), ((weight, row) for row in rows), strict=True))
        return numbers.float()

    def of_heads(self, attention: Any, count: int) -> Tensor:
        """A number for each head of an attention's result."""
        first = len(self.heads) + FIRST
        self.heads += [(attention, head) for head in range(count)]
        return -torch.arange(first, first + count).float()

    def is_row(self, tensor: Any) -> bool:
        """Whether it begins with a number of a row: a quick look."""
        return _first(tensor) in self.given

    def is_head(self, tensor: Any) -> bool:
        return self._head(_first(tensor)) is not None

    def rows(self, values: Tensor) -> Sources | None:
        """The rows whose numbers these are; None unless every one is."""
        numbers = values.flatten().tolist()
        return [self.given[n] for n in numbers] if all(n in self.given for n in numbers) else None

    def head_of(self, values: Tensor) -> list[tuple[Any, int]] | None:
        """The (attention, head) of each value; None unless every one is the number of a head."""
        found = [self._head(number) for number in values.flatten().tolist()]
        known = [head for head in found if head is not None]
        return known if len(known) == len(found) else None

    def _head(self, number: float | None) -> tuple[Any, int] | None:
        if number is None or not -FIRST - len(self.heads) < number <= -FIRST or number % 1:
            return None
        return self.heads[int(-number) - FIRST]

    def heads_in(self, tensor: Tensor) -> Heads | None:
        """Where each head of a q, k or v (batch, ..., tokens, width) comes from.

        The dimensions between batch and tokens are heads, and windows, in each of which a head is
        the same. None where it is not made of numbers; no heads where they lie among the tokens.
        Grouped queries: heads of k and v that are repeated count once.
        """
        if tensor.ndim < 3 or not tensor.is_floating_point() or 0 in tensor.shape:
            return None
        first = tensor if tensor.ndim == 3 else tensor[0]
        values = first[..., 0, :].double()
        different: dict[tuple[float, ...], int] = {}
        rows = [tuple(row) for row in values.reshape(-1, values.shape[-1]).tolist()]
        index = [different.setdefault(row, len(different)) for row in rows]
        read = [self._scaled_rows(torch.tensor(row, dtype=torch.double)) for row in different]
        sources = [tuple(head) for head in read if head is not None]
        if len(sources) < len(read):
            return None
        if self._among_tokens(first):
            return Heads([], torch.empty(0))
        kept = list(dict.fromkeys(sources))
        place = [kept.index(sources[i]) for i in index]
        return Heads([list(head) for head in kept], torch.tensor(place).view(values.shape[:-1]))

    def _among_tokens(self, heads: Tensor) -> bool:
        """Whether one token has other rows than the next: a position turns them, but not so."""
        tokens = heads.flatten(0, -3)[0].double()
        other = tokens[(tokens != tokens[0]).any(-1)]
        return len(other) > 0 and self._scaled_rows(other[0]) is not None

    def _scaled_rows(self, values: Tensor) -> Sources | None:
        """Some models scale q, or q and k alike, before they meet."""
        width = len(values)
        for scale in (1.0, width**0.5, width**0.25):
            numbers = (values * scale).round()
            if torch.allclose(values * scale, numbers, rtol=3e-7, atol=1e-4):
                found = self.rows(numbers)
                if found is not None:
                    return found
        return None


def _first(tensor: Any) -> float | None:
    if not isinstance(tensor, Tensor) or tensor.is_meta or not tensor.numel():
        return None
    return tensor[(0,) * tensor.ndim].item() if tensor.is_floating_point() else None

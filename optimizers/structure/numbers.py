"""The numbers that the probe writes to the outputs of linear maps, and their meaning.

Each row of a weight has a number above zero, each head of an attention's result one below zero. The
numbers of rows rise by random steps, so that no arithmetic, such as a sum of two (an adapter's
output added to its base's), produces the number of another row.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EXACT = 2**24  # limit of consecutive whole numbers in fp32
STEP = 8  # consecutive numbers differ by less than this
FIRST = 2**12  # above other values that occur (masks, cosines)

Sources = list[tuple[int, int]]  # (weight's id, row) of every entry of a head


@dataclass(frozen=True)
class Heads:
    """The heads of a q, k or v; `index` says which head lies where (..., in each batch)."""

    sources: list[Sources]
    index: Tensor


class Numbers:
    """Assigns numbers and recognises them."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.last = FIRST
        self.given: dict[int, tuple[int, int]] = {}  # (weight, row) by number
        self.heads: list[tuple[Any, int]] = []  # (attention, head) by -number - FIRST

    def of_rows(self, weight: int, rows: list[int]) -> Tensor:
        """A number for each row of a weight (its id)."""
        steps = torch.randint(1, STEP, (len(rows),), generator=self.random).cumsum(0)
        if self.last + STEP * len(rows) >= EXACT:  # forget the older half
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
        """Whether the tensor begins with a number of a row: a quick test."""
        return _first(tensor) in self.given

    def is_head(self, tensor: Any) -> bool:
        return self._head(_first(tensor)) is not None

    def rows(self, values: Tensor) -> Sources | None:
        """The rows that the values are the numbers of; None unless each value is one."""
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
        """The origin of each head of a q, k or v (batch, ..., tokens, width).

        The dimensions between batch and tokens are heads, and windows, which all have the same
        heads. None if it is not made of numbers; no heads if heads lie among the tokens. Grouped
        queries: repeated heads of k and v count once.
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
        """Whether tokens have different rows, which a position's rotation alone would not cause."""
        tokens = heads.flatten(0, -3)[0].double()
        other = tokens[(tokens != tokens[0]).any(-1)]
        return len(other) > 0 and self._scaled_rows(other[0]) is not None

    def _scaled_rows(self, values: Tensor) -> Sources | None:
        """The rows of scaled values: some models scale q, or q and k alike, before the product."""
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

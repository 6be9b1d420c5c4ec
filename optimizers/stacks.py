"""Sorts views into stacks of matrices of one shape, which are orthogonalized together."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import NamedTuple

from torch import Tensor

from optimizers.views import Segment, View, block_shapes, segments, strips

# Elements per stack. On a CPU a stack should stay near the cache yet give each core a matrix, and
# its workspace counts in the step's peak memory; on a GPU it should fill the device.
ELEMENTS = {"cpu": 2**20, "cuda": 2**27}

SCALES = ("original", "match_rms_adamw", "spectral", "none")


def update_scale(rule: str, rows: int, columns: int) -> float:
    """The factor on msign for a block with fan-out `rows` and fan-in `columns`.

    original: sqrt(max(1, out/in)) (Keller Jordan); match_rms_adamw: 0.2 sqrt(max(out, in)), which
    gives an update RMS of 0.2 as AdamW's (Moonlight, arXiv 2502.16982); spectral: sqrt(out/in)
    (Scion, arXiv 2502.07529); none: 1.
    """
    if rule == "original":
        return max(1.0, rows / columns) ** 0.5
    if rule == "match_rms_adamw":
        return 0.2 * max(rows, columns) ** 0.5
    if rule == "spectral":
        return (rows / columns) ** 0.5
    if rule == "none":
        return 1.0
    raise ValueError(f"optimizer scale={rule}: must be one of {', '.join(SCALES)}")


class Move(NamedTuple):
    """One copy between a parameter's strips and a range of slots of a stack.

    transposed: fan-out lies along the stack's columns; neuron: the first of the strips' rows among
    all rows of the parameter, in the order of moves.
    """

    view: View
    segment: Segment
    slot: int
    transposed: bool
    scale: float
    neuron: int
    rows: int  # of one strip

    @property
    def slots(self) -> slice:
        return slice(self.slot, self.slot + self.segment.count)


class Stack(NamedTuple):
    """Matrices of one shape (count, n, m)."""

    shape: tuple[int, int, int]
    moves: list[Move]

    def part(self, X_bnm: Tensor, move: Move) -> Tensor:
        """The part that a move reads or writes, in the orientation of its strips."""
        part = X_bnm.narrow(0, move.slot, move.segment.count)
        part = part.mT if move.transposed else part
        axis = 1 + move.view["axis"]
        return part.narrow(axis, move.segment.offset, move.segment.size)


def plan(
    params: list[Tensor],
    views: list[View],
    rule: str,
    device_type: str | None = None,
    one_way: bool = False,
) -> list[Stack]:
    """Sort all blocks by shape and orientation, and cut them into stacks.

    device_type: the device of the stacks, if not that of `params`; one_way: no stack mixes matrices
    with fan-out along rows and matrices with fan-out along columns.
    """
    device = device_type or params[0].device.type
    buckets: dict[tuple, list[Move]] = {}
    filled: Counter[tuple] = Counter()
    neurons: Counter[int] = Counter()
    for view in views:
        place: dict[int, tuple[tuple, int, bool]] = {}
        shapes = block_shapes(view, params)
        for segment in segments(view):
            for block in range(segment.block, segment.block + segment.count):
                if block not in place:
                    tensor, shape = params[segment.member], shapes[block]
                    turned = _transposed(tensor, view, segment, *shape, device)
                    apart = turned if one_way or device != "cuda" else None
                    key = (*(reversed(shape) if turned else shape), apart)
                    place[block] = key, filled[key], turned
                    filled[key] += 1
            key, slot, turned = place[segment.block]
            rows = shapes[segment.block][0] if view["axis"] else segment.size
            scale = update_scale(rule, *shapes[segment.block])
            move = Move(view, segment, slot, turned, scale, neurons[segment.member], rows)
            buckets.setdefault(key, []).append(move)
            neurons[segment.member] += segment.count * rows
    limit = ELEMENTS.get(device, ELEMENTS["cpu"])
    stacks = []
    for key, moves in buckets.items():
        n, m, _ = key
        stacks += _cut(moves, filled[key], n, m, most=max(1, limit // (n * m)))
    # The largest first, so that a shared workspace need not grow.
    return sorted(stacks, key=lambda stack: -prod(stack.shape))


def rounds(stacks: list[Stack], device_type: str) -> list[list[Stack]]:
    """Stacks that are gathered together: on a GPU enough to fill it, elsewhere one at a time."""
    found: list[list[Stack]] = []
    filled = 0
    for stack in stacks:
        size = prod(stack.shape)
        if device_type != "cuda" or not found or filled + size > ELEMENTS["cuda"]:
            found.append([])
            filled = 0
        found[-1].append(stack)
        filled += size
    return found


def _transposed(
    tensor: Tensor, view: View, segment: Segment, rows: int, columns: int, device_type: str
) -> bool:
    """Whether a block is transposed in its stack: on a CPU as in memory, so that it is copied
    contiguously; on a GPU so that n <= m, which gives fewer and larger stacks."""
    if device_type == "cuda" and rows != columns:
        return rows > columns
    part = strips(tensor, view, segment)
    return part.stride(-2) < part.stride(-1)


def _cut(moves: list[Move], slots: int, n: int, m: int, most: int) -> list[Stack]:
    """Stacks of at most `most` slots, as equal as possible; a run of strips may be cut in two."""
    pieces = -(-slots // most)
    edges = [slots * i // pieces for i in range(pieces + 1)]
    stacks = []
    for low, high in pairwise(edges):
        inside = []
        for move in moves:
            start, stop = max(low, move.slot), min(high, move.slot + move.segment.count)
            if start < stop:
                skipped = start - move.slot
                segment = replace(
                    move.segment,
                    start=move.segment.start + skipped * move.segment.size,
                    count=stop - start,
                    block=move.segment.block + skipped,
                )
                neuron = move.neuron + skipped * move.rows
                inside.append(move._replace(segment=segment, slot=start - low, neuron=neuron))
        stacks.append(Stack((high - low, n, m), inside))
    return stacks


def shards(view: View, params: list[Tensor], pieces: int) -> View:
    """The view with each block cut in `pieces` along its axis, as sharding would cut it.

    Vectors stay whole.
    """
    shapes = block_shapes(view, params)
    blocks = []
    for block, shape in zip(view["blocks"], shapes, strict=True):
        length = shape[view["axis"]]
        count = min(pieces, length) if min(shape) > 1 else 1
        for i in range(count):
            blocks.append(_range(block, length * i // count, length * (i + 1) // count))
    return View(**{**view, "blocks": blocks})


def _range(block: list[list[int]], low: int, high: int) -> list[list[int]]:
    """The part low..high of a block, as indices along its pieces."""
    part, begin = [], 0
    for member, start, stop in block:
        end = begin + stop - start
        if max(low, begin) < min(high, end):
            part.append([member, start + max(low, begin) - begin, start + min(high, end) - begin])
        begin = end
    return part

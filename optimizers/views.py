"""Parameters read as batches of matrices, and written back: both ways exact, without copies.

A view says how one or more tensors of a parameter group are read as matrices (rows = fan-out,
columns = fan-in). It is plain data, so that it travels in a param group and through a checkpoint:

    members   positions in the group of the tensors it reads
    layout    how each is laid out: one of LAYOUTS
    axis      0 where blocks are cut from the rows, 1 where from the columns
    blocks    for each matrix its pieces [member, start, stop], stacked along the axis
"""

from typing import NamedTuple, TypedDict

from torch import Tensor

LAYOUTS = {
    "matrix": "stored (out, in)",
    "transposed": "stored (in, out)",
    "kernel": "stored (out, in, *kernel), read as (out, in * kernel)",
    "table": "stored (*1, entries, width), read as (width, entries)",
    "vector": "read as (n, 1)",
}


class View(TypedDict):
    members: list[int]
    layout: str
    axis: int
    blocks: list[list[list[int]]]


class Segment(NamedTuple):
    """`count` equal strips of one tensor, next to each other, each a part of its own block.

    block: the first block it belongs to; offset: where in the block a strip begins.
    """

    member: int
    start: int
    size: int
    count: int
    block: int
    offset: int


def as_matrix(tensor: Tensor, layout: str) -> Tensor:
    """The tensor as one matrix (rows, columns), sharing its storage."""
    if layout == "vector":
        return tensor.view(-1, 1)
    if layout == "kernel":
        return tensor.view(tensor.shape[0], -1)
    if layout == "table":
        return tensor.view(tensor.shape[-2:]).T
    return tensor.T if layout == "transposed" else tensor


def whole(member: int, tensor: Tensor, layout: str) -> View:
    """The view that reads one tensor as one matrix."""
    rows = as_matrix(tensor, layout).shape[0]
    return View(members=[member], layout=layout, axis=0, blocks=[[[member, 0, rows]]])


def block_shapes(view: View, tensors: list[Tensor]) -> list[tuple[int, int]]:
    """(rows, columns) of every matrix; `tensors` is the parameter group's list."""
    rows, columns = as_matrix(tensors[view["members"][0]], view["layout"]).shape
    lengths = [sum(stop - start for _, start, stop in block) for block in view["blocks"]]
    return [(rows, k) if view["axis"] else (k, columns) for k in lengths]


def segments(view: View) -> list[Segment]:
    """The view's pieces, runs of equal neighbours put together so that one copy moves them all."""
    found: list[Segment] = []
    for number, block in enumerate(view["blocks"]):
        offset = 0
        for member, start, stop in block:
            size = stop - start
            last = found[-1] if found else None
            alone = len(block) == 1 and last is not None and len(view["blocks"][number - 1]) == 1
            if alone and _continues(last, member, start, size):
                found[-1] = last._replace(count=last.count + 1)
            else:
                found.append(Segment(member, start, size, 1, number, offset))
            offset += size
    return found


def _continues(last: Segment, member: int, start: int, size: int) -> bool:
    end = last.start + last.size * last.count
    return (last.member, last.size, end) == (member, size, start)


def strips(tensor: Tensor, view: View, segment: Segment) -> Tensor:
    """The segment's part of the tensor as (count, rows, columns), sharing its storage."""
    matrix = as_matrix(tensor, view["layout"])
    length = segment.size * segment.count
    part = matrix.narrow(view["axis"], segment.start, length)
    part = part.unflatten(view["axis"], (segment.count, segment.size))
    return part.movedim(1, 0) if view["axis"] else part


def gather(view: View, tensors: list[Tensor]) -> list[Tensor]:
    """Every block as a matrix of its own (copied): the obvious form, which tests compare with."""
    shapes = block_shapes(view, tensors)
    blocks = [tensors[0].new_empty(shape) for shape in shapes]
    for segment in segments(view):
        part = strips(tensors[segment.member], view, segment)
        for i in range(segment.count):
            target = blocks[segment.block + i]
            target.narrow(view["axis"], segment.offset, segment.size).copy_(part[i])
    return blocks


def scatter(view: View, blocks: list[Tensor], tensors: list[Tensor]) -> None:
    """Write blocks back where gather read them."""
    for segment in segments(view):
        part = strips(tensors[segment.member], view, segment)
        for i in range(segment.count):
            source = blocks[segment.block + i]
            part[i].copy_(source.narrow(view["axis"], segment.offset, segment.size))

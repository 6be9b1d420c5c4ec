"""Reads parameters as batches of matrices and writes them back, exactly and without copies.

A view says how one or more tensors of a parameter group are read as matrices (rows = fan-out,
columns = fan-in). It is plain data, so it can be kept in a param group and in a checkpoint:

    members   positions in the group of the tensors that it reads
    layout    how each tensor is laid out: one of LAYOUTS
    axis      0 if blocks are cut from the rows, 1 if from the columns
    blocks    for each matrix its pieces [member, start, stop], stacked along the axis
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import TypedDict

from torch import Tensor

# channels_last orders a kernel's columns (a transposed kernel's rows) differently than kernel.
# msign commutes with permutations of both, so the update is the same for either order.
LAYOUTS = {
    "matrix": "stored (out, in)",
    "transposed": "stored (in, out)",
    "kernel": "stored (out, in, *kernel), read as (out, in * kernel)",
    "kernel_transposed": "stored (in, out, *kernel), read as (out * kernel, in)",
    "channels_last": "a kernel in channels_last memory, read as (out, kernel * in)",
    "channels_last_transposed": "stored (in, out, *kernel), read as (kernel * out, in)",
    "batch": "stored (count, out, in), each a matrix",
    "batch_transposed": "stored (count, in, out), each a matrix",
    "table": "stored (*entries, width), read as (width, entries)",
    "vector": "read as (n, 1)",
    "vectors": "stored (count, n), each read as (n, 1)",
}
# Layouts whose matrices lie side by side: their blocks are cut from the columns.
SIDE_BY_SIDE = ("batch_transposed", "kernel_transposed", "channels_last_transposed")
ACROSS = ("transposed", "table", *SIDE_BY_SIDE)  # layouts whose outer dimensions are the columns


class View(TypedDict):
    members: list[int]
    layout: str
    axis: int
    blocks: list[list[list[int]]]


@dataclass(frozen=True)
class Segment:
    """`count` equal adjacent strips of one tensor, each a part of a different block.

    block: the block of the first strip; offset: where in its block a strip begins.
    """

    member: int
    start: int
    size: int
    count: int
    block: int
    offset: int


def fits(tensor: Tensor, layout: str) -> bool:
    """Whether a tensor has the dimensions that a layout needs."""
    if layout == "vector":
        return True
    if layout == "table":
        return tensor.ndim >= 2
    if layout.startswith("batch"):
        return tensor.ndim == 3
    return tensor.ndim >= 3 if layout.startswith(("kernel", "channels_last")) else tensor.ndim == 2


def as_stored(tensor: Tensor, layout: str) -> str:
    """A kernel's layout by its memory format: channels_last if its channels are innermost.

    That permutes a kernel's columns, which does not affect msign (see LAYOUTS).
    """
    if not layout.startswith("kernel") or tensor.is_contiguous():
        return layout
    innermost = tensor.movedim(1, -1).is_contiguous()
    return layout.replace("kernel", "channels_last") if innermost else layout


def axes(layout: str, ndim: int) -> tuple[list[int], list[int]]:
    """The dimensions that form the rows and those that form the columns, outermost first."""
    dims = list(range(ndim))
    if layout in ("vector", "vectors"):
        return dims, []
    if layout.startswith("channels_last"):
        dims = [0, *dims[2:], 1]
    first = ndim - 1 if layout.startswith(("batch", "table")) else 1
    outer, inner = dims[:first], dims[first:]
    return (inner, outer) if layout in ACROSS else (outer, inner)


def matrix_shape(shape: Sequence[int], layout: str) -> tuple[int, int]:
    """(rows, columns) of a tensor of this shape; strides and position do not matter."""
    rows, columns = axes(layout, len(shape))
    return prod(shape[d] for d in rows), prod(shape[d] for d in columns)


def as_matrix(tensor: Tensor, layout: str) -> Tensor:
    """The tensor as one matrix (rows, columns), sharing its storage.

    A batch is read as one matrix too: "batch" and "vectors" stack its matrices, "batch_transposed"
    sets them side by side. Raises ValueError if that needs a copy.
    """
    try:
        if layout in ("vector", "vectors"):
            return tensor.view(-1, 1)
        if layout.startswith("channels_last"):
            tensor = tensor.movedim(1, -1)
        if layout.startswith(("kernel", "channels_last")):
            matrix = tensor.view(tensor.shape[0], -1)
        elif layout.startswith("batch") or (layout == "table" and tensor.ndim > 2):
            matrix = tensor.view(-1, tensor.shape[-1])
        else:
            matrix = tensor
    except RuntimeError:
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} and strides {tensor.stride()} cannot be read "
            f"as {layout} without a copy"
        ) from None
    return matrix.T if layout in ACROSS else matrix


def readable(tensor: Tensor, layout: str) -> bool:
    """Whether as_matrix needs no copy: the dimensions of its rows are contiguous in memory as one,
    and so are those of its columns."""
    shape, strides = tensor.shape, tensor.stride()
    for dims in axes(layout, tensor.ndim):
        long = [d for d in dims if shape[d] != 1]
        if any(strides[a] != shape[b] * strides[b] for a, b in pairwise(long)):
            return False
    return True


def reordered(tensor: Tensor, layout: str) -> Tensor:
    """A copy whose memory order is that of the layout."""
    if layout.startswith("channels_last"):
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    return tensor.contiguous()


def whole(member: int, tensor: Tensor, layout: str, groups: int = 1, axis: int = 0) -> View:
    """The view that reads one tensor as one matrix, or a batch as one matrix per entry.

    groups: the number of equal groups of a convolution, or of maps stored one after another; each
    is a separate linear map; axis: 1 if such maps lie side by side. A tensor without elements has
    no matrices.
    """
    if tensor.numel() == 0:
        return View(members=[member], layout=layout, axis=0, blocks=[])
    layout = as_stored(tensor, layout)
    axis = 1 if layout in SIDE_BY_SIDE else axis
    count = tensor.shape[0] if layout.startswith("batch") or layout == "vectors" else groups
    size = matrix_shape(tensor.shape, layout)[axis] // count
    blocks = [[[member, i * size, (i + 1) * size]] for i in range(count)]
    return View(members=[member], layout=layout, axis=axis, blocks=blocks)


def only(views: Sequence[View], members: Collection[int]) -> list[View]:
    """The views without the pieces of other tensors: a joined matrix consists of those left."""
    found = []
    for view in views:
        blocks = [[piece for piece in block if piece[0] in members] for block in view["blocks"]]
        blocks = [block for block in blocks if block]
        if blocks:
            left = [k for k in view["members"] if k in members]
            layout, axis = view["layout"], view["axis"]
            found.append(View(members=left, layout=layout, axis=axis, blocks=blocks))
    return found


def block_shapes(view: View, tensors: list[Tensor]) -> list[tuple[int, int]]:
    """(rows, columns) of every matrix; `tensors` is the parameter group's list."""
    rows, columns = matrix_shape(tensors[view["members"][0]].shape, view["layout"])
    lengths = [sum(stop - start for _, start, stop in block) for block in view["blocks"]]
    return [(rows, k) if view["axis"] else (k, columns) for k in lengths]


def segments(view: View) -> list[Segment]:
    """The view's pieces; runs of equal neighbours are merged so that one copy moves them all."""
    found: list[Segment] = []
    for number, block in enumerate(view["blocks"]):
        offset = 0
        for member, start, stop in block:
            size = stop - start
            last = found[-1] if found else None
            alone = len(block) == 1 and len(view["blocks"][number - 1]) == 1
            if alone and last is not None and _continues(last, member, start, size):
                found[-1] = replace(last, count=last.count + 1)
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
    """Every block as a separate matrix (copied): the simple form, which tests compare with."""
    shapes = block_shapes(view, tensors)
    blocks = [tensors[0].new_empty(shape) for shape in shapes]
    for segment in segments(view):
        part = strips(tensors[segment.member], view, segment)
        for i in range(segment.count):
            target = blocks[segment.block + i]
            target.narrow(view["axis"], segment.offset, segment.size).copy_(part[i])
    return blocks


def scatter(view: View, blocks: list[Tensor], tensors: list[Tensor]) -> None:
    """Write the blocks back to where gather read them."""
    for segment in segments(view):
        part = strips(tensors[segment.member], view, segment)
        for i in range(segment.count):
            source = blocks[segment.block + i]
            part[i].copy_(source.narrow(view["axis"], segment.offset, segment.size))

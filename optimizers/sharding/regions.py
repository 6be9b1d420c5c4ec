"""Which part of a tensor each process holds, and what a view reads from that part.

For every dimension of a whole tensor, a region lists the runs [start, stop) that are held; the
local tensor has them side by side. All of this is arithmetic on shapes: every process knows the
regions of all others without communication.
"""

import functools
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from optimizers.views import View, axes, matrix_shape

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Runs = tuple[tuple[int, int], ...]
Region = tuple[Runs, ...]
Box = tuple[slice, ...]


def mesh_of(tensor: Tensor) -> Any:
    """The DeviceMesh of a DTensor; None for a plain tensor.

    Looked up as an attribute: importing the class takes half a second, which one process can avoid.
    """
    return getattr(tensor, "device_mesh", None)


def is_dtensor(tensor: Tensor) -> TypeGuard["DTensor"]:
    return mesh_of(tensor) is not None


def local(tensor: Tensor) -> Tensor:
    """The part of the tensor on this process, sharing its storage; a plain tensor itself."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def outline(tensor: Tensor) -> Tensor:
    """A tensor with a DTensor's whole shape but no content; a plain tensor itself."""
    return tensor if mesh_of(tensor) is None else torch.empty(tensor.shape, device="meta")


def everything(shape: Sequence[int]) -> Region:
    return tuple(((0, length),) if length else () for length in shape)


def region(
    shape: Sequence[int], placements: Sequence[Any], mesh: Sequence[int], place: Sequence[int]
) -> Region:
    """The part of a tensor with placements that the process at `place` in a mesh holds.

    This follows torch: the mesh's dimensions from left to right; Shard cuts by torch.chunk;
    _StridedShard cuts each of its `split_factor` equal pieces separately (the same heads of q, k
    and v). Raises ValueError if a dimension that is already cut is cut in pieces again: then
    torch's own account of the placement differs from what fully_shard does.
    """
    dims = [torch.arange(length) for length in shape]
    cut: set[int] = set()
    for placement, ways, number in zip(placements, mesh, place, strict=True):
        dim = getattr(placement, "dim", None)
        if dim is None:  # Replicate
            continue
        pieces = getattr(placement, "split_factor", 1)
        if dim in cut and pieces > 1:
            raise ValueError(
                f"placements {tuple(placements)}: dimension {dim} is cut, and then again in "
                f"{pieces} pieces, of which torch loses track; replicate it over part of the mesh"
            )
        cut.add(dim)
        dims[dim] = torch.cat([_chunk(part, ways, number) for part in _parts(dims[dim], pieces)])
    return tuple(_runs(indices) for indices in dims)


def _chunk(indices: Tensor, count: int, number: int) -> Tensor:
    """As torch.chunk, which omits chunks that would be empty."""
    size = -(-len(indices) // count)
    return indices[number * size : (number + 1) * size]


def _parts(indices: Tensor, count: int) -> list[Tensor]:
    return [_chunk(indices, count, number) for number in range(count)]


def _runs(indices: Tensor) -> Runs:
    """Ascending numbers as runs of consecutive numbers."""
    ends = (indices.diff() > 1).nonzero().flatten() + 1
    parts = indices.tensor_split(ends) if len(indices) else ()
    return tuple((int(part[0]), int(part[-1]) + 1) for part in parts)


def extent(found: Region) -> tuple[int, ...]:
    """The shape of the local tensor."""
    return tuple(sum(stop - start for start, stop in runs) for runs in found)


@functools.cache
def boxes(found: Region) -> list[tuple[Box, Box]]:
    """The region as rectangles: the position of each in the whole tensor and in the local one."""
    sides = []
    for runs in found:
        begin, side = 0, []
        for start, stop in runs:
            side.append((slice(start, stop), slice(begin, begin + stop - start)))
            begin += stop - start
        sides.append(side)
    return [
        (tuple(outer for outer, _ in box), tuple(inner for _, inner in box))
        for box in product(*sides)
    ]


def lines(found: Region, shape: Sequence[int], layout: str, axis: int) -> Tensor:
    """The rows (axis 0) or columns (1) of the whole matrix that the local one has, ascending."""
    numbers = torch.zeros(1, dtype=torch.int64)
    for dim in axes(layout, len(shape))[axis]:
        runs = [torch.arange(start, stop) for start, stop in found[dim]]
        held = torch.cat(runs) if runs else torch.zeros(0, dtype=torch.int64)
        numbers = (numbers.unsqueeze(1) * shape[dim] + held).flatten()
    return numbers


def held_blocks(
    view: View, shapes: Sequence[Sequence[int]], held: Sequence[Region]
) -> list[list[list[int]]]:
    """For each block of a view the pieces that a process holds, as indices in its local tensors.

    shapes, held: of all members of the group. Lines are ascending, so the held part of a piece is
    one piece again. A block without held parts has no pieces.
    """
    layout, axis = view["layout"], view["axis"]
    blocks: list[list[list[int]]] = [[] for _ in view["blocks"]]
    for member in view["members"]:
        if not all(extent(held[member])):
            continue
        mine = lines(held[member], shapes[member], layout, axis)
        pieces = [
            (number, place, ends)
            for number, block in enumerate(view["blocks"])
            for place, (owner, *ends) in enumerate(block)
            if owner == member
        ]
        found = torch.searchsorted(mine, torch.tensor([ends for _, _, ends in pieces]))
        for (number, place, _), (start, stop) in zip(pieces, found.tolist(), strict=True):
            if start < stop:
                blocks[number].append([place, member, start, stop])
    return [[piece[1:] for piece in sorted(block)] for block in blocks]


def local_view(view: View, shapes: Sequence[Sequence[int]], held: Sequence[Region]) -> View | None:
    """The view's part of a process's local tensors: each block's share is a matrix; or None."""
    blocks = [block for block in held_blocks(view, shapes, held) if block]
    if not blocks:
        return None
    members = [k for k in view["members"] if any(k == piece[0] for b in blocks for piece in b)]
    across = {matrix_shape(extent(held[k]), view["layout"])[1 - view["axis"]] for k in members}
    if len(across) > 1:
        raise ValueError(
            f"optimizer views: tensors {members} are joined, but of each a different part of the "
            f"{'rows' if view['axis'] else 'columns'} is held ({sorted(across)})"
        )
    return View(members=members, layout=view["layout"], axis=view["axis"], blocks=blocks)


def dense(layout: str) -> str:
    """The layout of a tensor made contiguous: msign ignores the order of a kernel's columns."""
    return layout.replace("channels_last", "kernel")


def aligned(
    view: View, shapes: Sequence[Sequence[int]], held_by: Sequence[Sequence[Region]]
) -> bool:
    """Whether every process that holds any part of a block holds the whole block.

    held_by: for each process the regions of all members of the group.
    """
    sizes = [sum(stop - start for _, start, stop in block) for block in view["blocks"]]
    whole = {k: matrix_shape(shapes[k], view["layout"])[1 - view["axis"]] for k in view["members"]}
    for held in {tuple(held[k] for k in view["members"]): held for held in held_by}.values():
        for block, size in zip(held_blocks(view, shapes, held), sizes, strict=True):
            if block and sum(stop - start for _, start, stop in block) != size:
                return False
            for k in {piece[0] for piece in block}:
                if matrix_shape(extent(held[k]), view["layout"])[1 - view["axis"]] != whole[k]:
                    return False
    return True

"""Views: every layout and cut is read and written back exactly, without copies."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.views import (
    LAYOUTS,
    View,
    as_matrix,
    block_shapes,
    gather,
    scatter,
    segments,
    strips,
    whole,
)

STORED = {
    "matrix": (3, 4),
    "transposed": (4, 3),
    "kernel": (3, 2, 2, 1),
    "table": (1, 4, 3),
    "vector": (5,),
}


def stored_shape(layout, rows, columns, factor):
    """How a matrix (rows, columns) lies in memory; `factor` is the last size of a kernel."""
    return {
        "matrix": (rows, columns),
        "transposed": (columns, rows),
        "kernel": (rows, columns // factor, 1, factor),
        "table": (1, 1, columns, rows),
        "vector": (rows,),
    }[layout]


def entry(tensor, layout, row, column):
    """One element of the matrix, by arithmetic on the stored shape alone."""
    width = {
        "matrix": tensor.shape[-1],
        "kernel": math.prod(tensor.shape[1:]),
        "vector": 1,
    }
    if layout in width:
        return tensor.flatten()[row * width[layout] + column].item()
    return tensor.flatten()[column * tensor.shape[-1] + row].item()  # transposed, table


def slow_gather(view, tensors, rows, columns):
    """Every block as nested lists, one element at a time."""
    blocks = []
    for pieces in view["blocks"]:
        along = [(member, i) for member, start, stop in pieces for i in range(start, stop)]
        if view["axis"] == 0:
            places = [[(m, i, column) for column in range(columns)] for m, i in along]
        else:
            places = [[(m, row, i) for m, i in along] for row in range(rows)]
        layout = view["layout"]
        blocks.append([[entry(tensors[m], layout, r, c) for m, r, c in line] for line in places])
    return blocks


@st.composite
def readings(draw):
    """(view, tensors, rows, columns): one or more tensors cut into blocks of one or more pieces.

    Some cuts are even and in order (runs that one copy can move), others uneven, shuffled, with
    pieces left out and pieces of several tensors in a block.
    """
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    axis = 0 if layout == "vector" else draw(st.integers(0, 1))
    other = 1 if layout == "vector" else draw(st.integers(1, 4))
    tensors, pieces, members = [torch.arange(3.0)], [], []  # the first is no part of the view
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            sizes = [draw(st.integers(1, 3))] * draw(st.integers(1, 4))
        else:
            sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
        rows, columns = (other, sum(sizes)) if axis else (sum(sizes), other)
        factor = draw(st.sampled_from([k for k in (1, 2, 3) if columns % k == 0]))
        member = len(tensors)
        numel, first = rows * columns, sum(t.numel() for t in tensors)
        values = torch.arange(first, first + numel, dtype=torch.float32)
        tensors.append(values.reshape(stored_shape(layout, rows, columns, factor)))
        edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        pieces += [[member, a, b] for a, b in pairwise(edges)]
        members.append(member)
    if draw(st.booleans()):
        pieces = draw(st.permutations(pieces))
        pieces = pieces[: draw(st.integers(1, len(pieces)))]
    most = draw(st.sampled_from([1, 1, 3]))
    blocks = []
    while pieces:
        count = draw(st.integers(1, min(most, len(pieces))))
        blocks.append([list(piece) for piece in pieces[:count]])
        pieces = pieces[count:]
    view = View(members=members, layout=layout, axis=axis, blocks=blocks)
    return view, tensors, other if axis else None, None if axis else other


@given(readings())
@settings(max_examples=200, deadline=None)
def test_gather_reads_the_elements_that_index_arithmetic_names(reading):
    view, tensors, rows, columns = reading
    want = slow_gather(view, tensors, rows, columns)
    blocks = gather(view, tensors)
    assert [block.tolist() for block in blocks] == want
    assert block_shapes(view, tensors) == [(len(block), len(block[0])) for block in want]


@given(readings())
@settings(max_examples=200, deadline=None)
def test_scatter_restores_what_gather_read_and_nothing_else(reading):
    view, tensors, *_ = reading
    empty = [torch.full_like(t, -1.0) for t in tensors]
    blocks = gather(view, tensors)
    scatter(view, blocks, empty)
    read = {value for block in blocks for value in block.flatten().tolist()}
    for tensor, written in zip(tensors, empty, strict=True):
        want = [value if value in read else -1.0 for value in tensor.flatten().tolist()]
        assert written.flatten().tolist() == want


@given(readings())
@settings(max_examples=100, deadline=None)
def test_strips_are_the_parameters_own_storage(reading):
    view, tensors, *_ = reading
    seen = 0
    for segment in segments(view):
        tensor = tensors[segment.member]
        part = strips(tensor, view, segment)
        assert part.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
        assert part.shape[0] == segment.count
        assert part.shape[1 + view["axis"]] == segment.size
        seen += part.numel()
    assert seen == sum(rows * columns for rows, columns in block_shapes(view, tensors))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_whole_view_is_the_one_matrix_of_the_layout(layout):
    tensor = torch.randn(STORED[layout])
    matrix = as_matrix(tensor, layout)
    (block,) = gather(whole(0, tensor, layout), [tensor])
    assert torch.equal(block, matrix)
    assert block_shapes(whole(0, tensor, layout), [tensor]) == [tuple(matrix.shape)]
    matrix.zero_()  # writing to the matrix is writing to the tensor
    assert not tensor.any()


def test_the_heads_of_a_fused_projection_move_in_one_copy():
    blocks = [[[0, i * 8, (i + 1) * 8]] for i in range(12)]
    view = View(members=[0], layout="transposed", axis=0, blocks=blocks)
    (run,) = segments(view)
    assert (run.size, run.count) == (8, 12)

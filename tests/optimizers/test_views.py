"""Views: every layout and cut is read and written back exactly, without copies."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optimizers.views import (
    LAYOUTS,
    View,
    as_matrix,
    as_stored,
    block_shapes,
    fits,
    gather,
    scatter,
    segments,
    strips,
    whole,
)

SPLIT_ROWS = ("batch", "vectors", "kernel_transposed", "channels_last_transposed")


def stored(layout, values, rows, columns, factor):
    """A matrix (rows, columns) as it lies in memory.

    factor: the last size of a kernel, or the entries of a batch; it divides the rows where the
    layout is in SPLIT_ROWS, else the columns.
    """
    kernel, kernel_transposed = (rows, columns // factor), (columns, rows // factor)
    if layout.startswith("channels_last"):
        sizes = kernel_transposed if layout.endswith("transposed") else kernel
        return values.reshape(sizes[0], 1, factor, sizes[1]).permute(0, 3, 1, 2)
    shape = {
        "matrix": (rows, columns),
        "transposed": (columns, rows),
        "kernel": (*kernel, 1, factor),
        "kernel_transposed": (*kernel_transposed, 1, factor),
        "batch": (factor, rows // factor, columns),
        "batch_transposed": (factor, columns // factor, rows),
        "table": (1, 1, columns, rows),
        "vector": (rows,),
        "vectors": (factor, rows // factor),
    }[layout]
    return values.reshape(shape)


def entry(tensor, layout, row, column):
    """One element of the matrix, by the indices that LAYOUTS speaks of."""
    middle, last = tensor.shape[min(1, tensor.ndim - 1)], tensor.shape[-1]
    index = {
        "matrix": (row, column),
        "transposed": (column, row),
        "kernel": (row, column // last, 0, column % last),
        "channels_last": (row, column % middle, 0, column // middle),
        "kernel_transposed": (column, row // last, 0, row % last),
        "channels_last_transposed": (column, row % middle, 0, row // middle),
        "batch": (row // middle, row % middle, column),
        "batch_transposed": (column // middle, column % middle, row),
        "table": (0, 0, column, row),
        "vector": (row,),
        "vectors": (row // middle, row % middle),
    }[layout]
    return tensor[index].item()


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
    axis = 0 if layout.startswith("vector") else draw(st.integers(0, 1))
    other = 1 if layout.startswith("vector") else draw(st.integers(1, 4))
    tensors, pieces, members = [torch.arange(3.0)], [], []  # the first is no part of the view
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            sizes = [draw(st.integers(1, 3))] * draw(st.integers(1, 4))
        else:
            sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
        rows, columns = (other, sum(sizes)) if axis else (sum(sizes), other)
        divided = rows if layout in SPLIT_ROWS else columns
        factor = draw(st.sampled_from([k for k in (1, 2, 3) if divided % k == 0]))
        member = len(tensors)
        numel, first = rows * columns, sum(t.numel() for t in tensors)
        values = torch.arange(first, first + numel, dtype=torch.float32)
        tensors.append(stored(layout, values, rows, columns, factor))
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
@settings(max_examples=200)
def test_gather_reads_the_elements_that_index_arithmetic_names(reading):
    view, tensors, rows, columns = reading
    want = slow_gather(view, tensors, rows, columns)
    blocks = gather(view, tensors)
    assert [block.tolist() for block in blocks] == want
    assert block_shapes(view, tensors) == [(len(block), len(block[0])) for block in want]


@given(readings())
@settings(max_examples=200)
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
@settings(max_examples=100)
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


def parts_of(layout, tensor):
    """What the matrices of a tensor are, in torch's own terms."""
    if layout in ("batch", "vectors"):
        return [part.view(len(part), -1) for part in tensor]
    return [part.T for part in tensor] if layout == "batch_transposed" else None


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_whole_view_is_the_matrix_or_the_batch_of_the_layout(layout):
    rows, columns = (6, 1) if layout.startswith("vector") else (6, 4)
    tensor = stored(layout, torch.randn(rows * columns), rows, columns, 2)
    expected = parts_of(layout, tensor) or [as_matrix(tensor, layout)]
    view = whole(0, tensor, layout)
    blocks = gather(view, [tensor])
    assert view["layout"] == layout and fits(tensor, layout)
    assert len(blocks) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(blocks, expected, strict=True))
    assert block_shapes(view, [tensor]) == [tuple(block.shape) for block in expected]
    as_matrix(tensor, layout).zero_()  # writing to the matrix is writing to the tensor
    assert not tensor.any()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_kernels_matrices_are_the_maps_between_a_patch_and_a_point(
    channels_last, groups, transposed
):
    """One output point of a convolution is its matrix times a patch; a transposed convolution
    turns one point into its matrix times it. Each group by itself."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(4, 8, (2, 3), groups=groups, bias=False)
    x = torch.randn(1, 4, 1, 1) if transposed else torch.randn(1, 4, 2, 3)
    y = conv(x)
    if channels_last:
        conv.to(memory_format=torch.channels_last)
    layout = as_stored(conv.weight, "kernel_transposed" if transposed else "kernel")
    one = conv.weight.shape[1] == 1  # its memory format makes no difference
    assert layout.startswith("channels_last") == (channels_last and not one)
    weight = conv.weight.detach()
    blocks = gather(whole(0, weight, layout, groups), [weight])
    assert len(blocks) == groups

    def columns(images):  # each group's channels, in the order of the matrix
        parts = images.chunk(groups, 1)
        return [(p.movedim(1, -1) if channels_last else p).flatten() for p in parts]

    for block, source, target in zip(blocks, columns(x), columns(y), strict=True):
        assert torch.allclose(block @ source, target, atol=1e-6)


def test_what_takes_a_copy_is_refused_in_one_line():
    sliced = torch.randn(4, 6, 3, 3)[:, ::2]
    with pytest.raises(ValueError, match=r"\(4, 3, 3, 3\) and strides .* kernel without a copy"):
        as_matrix(sliced, "kernel")
    view = whole(0, sliced.contiguous(memory_format=torch.channels_last), "kernel")
    with pytest.raises(ValueError, match="channels_last without a copy"):
        gather(view, [sliced.contiguous()])  # and not columns in another order


def test_the_heads_of_a_fused_projection_move_in_one_copy():
    blocks = [[[0, i * 8, (i + 1) * 8]] for i in range(12)]
    view = View(members=[0], layout="transposed", axis=0, blocks=blocks)
    (run,) = segments(view)
    assert (run.size, run.count) == (8, 12)

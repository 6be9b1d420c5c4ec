"""alpha A B + beta C + gamma I for a symmetric result: computes tiles on and below the diagonal."""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from optimizers.kernels import device_of

# Side of a tile, depth of a step, warps, stages. The fastest shape is measured at run time.
SHAPES = ((128, 64, 8, 3), (128, 32, 4, 4), (64, 64, 4, 4))


@triton.jit
def _symmetric(
    A,
    B,
    C,
    D,
    n,
    a_stack,
    a_row,
    a_column,
    b_stack,
    b_row,
    b_column,
    c_stack,
    c_row,
    d_stack,
    d_row,
    alpha,
    beta,
    gamma,
    k,
    ADDED: tl.constexpr,
    SIDE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # The tile's number counts the rows of a triangle: row i begins at i (i + 1) / 2.
    number = tl.program_id(0)
    i = ((tl.sqrt(8.0 * number + 1.0) - 1.0) / 2.0).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > number, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= number, i + 1, i)
    j = number - i * (i + 1) // 2
    matrix = tl.program_id(1).to(tl.int64)
    rows = i * SIDE + tl.arange(0, SIDE)
    columns = j * SIDE + tl.arange(0, SIDE)
    depth = tl.arange(0, DEPTH)
    a = A + matrix * a_stack + rows[:, None] * a_row + depth[None, :] * a_column
    b = B + matrix * b_stack + depth[:, None] * b_row + columns[None, :] * b_column
    total = tl.zeros((SIDE, SIDE), dtype=tl.float32)
    for start in range(0, k, DEPTH):
        left = start + depth < k
        x = tl.load(a, mask=(rows < n)[:, None] & left[None, :], other=0.0)
        y = tl.load(b, mask=left[:, None] & (columns < n)[None, :], other=0.0)
        total += tl.dot(x, y, input_precision="ieee")
        a += DEPTH * a_column
        b += DEPTH * b_row
    total = alpha * total
    inside = (rows < n)[:, None] & (columns < n)[None, :]
    if ADDED:
        c = C + matrix * c_stack + rows[:, None] * c_row + columns[None, :]
        total += beta * tl.load(c, mask=inside, other=0.0).to(tl.float32)
    total += tl.where(rows[:, None] == columns[None, :], gamma, 0.0)
    found = total.to(D.dtype.element_ty)
    D += matrix * d_stack
    tl.store(D + rows[:, None] * d_row + columns[None, :], found, mask=inside)
    if i != j:  # mirror the tile
        mirror = D + columns[:, None] * d_row + rows[None, :]
        tl.store(mirror, tl.trans(found), mask=(columns < n)[:, None] & (rows < n)[None, :])


def launch(
    A_bnk: Tensor,
    B_bkn: Tensor,
    added_bnn: Tensor | None,
    alpha: float,
    beta: float,
    gamma: float,
    out_bnn: Tensor,
    shape: Sequence[int],
) -> None:
    """Write to `out`, which must not be an operand. Rows of `added` and `out` are contiguous."""
    b, n, k = A_bnk.shape
    side, depth, warps, stages = shape
    tiles = -(-n // side)
    added = out_bnn if added_bnn is None else added_bnn
    assert added.stride(-1) == out_bnn.stride(-1) == 1
    with device_of(A_bnk):
        _symmetric[(tiles * (tiles + 1) // 2, b)](
            *(A_bnk, B_bkn, added, out_bnn, n),
            *(*A_bnk.stride(), *B_bkn.stride(), *added.stride()[:2], *out_bnn.stride()[:2]),
            *(alpha, beta, gamma, k, added_bnn is not None, side, depth),
            num_warps=warps,
            num_stages=stages,
        )

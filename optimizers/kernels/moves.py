"""All strips of several stacks in one kernel launch, by tables of addresses.

A row of `table` is a move. It holds where the move's strips begin in two tensors (`apply` reads
one) and in X, three strides (strip, row, column) for each of the three, and the numbers of rows and
columns of a strip. A row of `tiles` is a program: move, strip, first row, first column.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from optimizers.kernels import COLUMNS, FIELDS, ROWS, device_of

_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def _place(table, tiles, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The move's row in the table, its number, strip, rows, columns, and mask of valid entries."""
    tile = tiles + 4 * tl.program_id(0)
    move = tl.load(tile).to(tl.int64)
    at = table + _FIELDS * move
    strip = tl.load(tile + 1).to(tl.int64)
    row = (tl.load(tile + 2) + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = (tl.load(tile + 3) + tl.arange(0, COLUMNS)).to(tl.int64)[None, :]
    inside = (row < tl.load(at + 12)) & (column < tl.load(at + 13))
    return at, move, strip, row, column, inside


@triton.jit
def _offset(strides, strip, row, column):
    return strip * tl.load(strides) + row * tl.load(strides + 1) + column * tl.load(strides + 2)


@triton.jit
def gather(
    table,
    tiles,
    momentum,
    new,  # 1 - momentum
    top,  # the largest number of fp16
    GRAD: tl.constexpr,
    BUFFER: tl.constexpr,
    STACK: tl.constexpr,
    NESTEROV: tl.constexpr,
    CLASSICAL: tl.constexpr,
    CLAMPED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write the step's directions to the stacks; add the gradient to the momentum, in fp32."""
    at, _, strip, row, column, inside = _place(table, tiles, ROWS, COLUMNS)
    grads = tl.load(at).to(tl.pointer_type(GRAD)) + _offset(at + 3, strip, row, column)
    buffers = tl.load(at + 1).to(tl.pointer_type(BUFFER)) + _offset(at + 6, strip, row, column)
    grad = tl.load(grads, mask=inside, other=0.0).to(tl.float32)
    moment = tl.load(buffers, mask=inside, other=0.0).to(tl.float32)
    if CLASSICAL:
        moment = momentum * moment + grad
        start = grad / new
    else:
        moment = moment + new * (grad - moment)
        start = grad
    kept = moment
    if CLAMPED:
        kept = tl.minimum(tl.maximum(moment, -top), top)
    tl.store(buffers, kept.to(BUFFER), mask=inside)
    if NESTEROV:
        moment = moment - new * (moment - start)
    target = tl.load(at + 2).to(tl.pointer_type(STACK)) + _offset(at + 9, strip, row, column)
    tl.store(target, moment.to(STACK), mask=inside)


@triton.jit
def apply(
    table,
    tiles,
    scales,
    lr,
    decay,
    PARAM: tl.constexpr,
    STACK: tl.constexpr,
    CAUTIOUS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """param <- (1 - decay) param - lr scale U, in fp32, with U from the stacks; cautious: decay
    only the weights that U shrinks too."""
    at, move, strip, row, column, inside = _place(table, tiles, ROWS, COLUMNS)
    params = tl.load(at).to(tl.pointer_type(PARAM)) + _offset(at + 3, strip, row, column)
    source = tl.load(at + 2).to(tl.pointer_type(STACK)) + _offset(at + 9, strip, row, column)
    update = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    param = tl.load(params, mask=inside, other=0.0).to(tl.float32)
    if CAUTIOUS:
        param = param - tl.where(update * param >= 0, decay * param, 0.0)
    else:
        param = param - decay * param
    param = param - lr * tl.load(scales + move) * update
    tl.store(params, param.to(PARAM), mask=inside)


NAMES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def launch_gather(
    table: Tensor,
    tiles: Tensor,
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype],
    momentum: float,
    classical: bool,
    nesterov: bool,
) -> None:
    """dtypes: those of gradients, buffers and stacks."""
    clamped = classical and dtypes[1] == torch.float16
    with device_of(tiles):
        gather[(len(tiles),)](
            *(table, tiles, momentum, 1 - momentum, torch.finfo(torch.float16).max),
            *(*(NAMES[dtype] for dtype in dtypes), nesterov, classical, clamped, ROWS, COLUMNS),
        )


def launch_apply(
    table: Tensor,
    tiles: Tensor,
    scales: Tensor,
    dtypes: tuple[torch.dtype, torch.dtype],
    lr: float,
    decay: float,
    cautious: bool,
) -> None:
    """dtypes: those of parameters and stacks."""
    with device_of(tiles):
        apply[(len(tiles),)](
            *(table, tiles, scales, lr, decay),
            *(*(NAMES[dtype] for dtype in dtypes), cautious, ROWS, COLUMNS),
        )

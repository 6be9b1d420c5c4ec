"""Symmetric products on a GPU: our kernel where it measured faster than torch's product.

The kernel is a torch operator, `muon::symmetric`, so that tensors without data, the compiler
and FLOP counters know it.
"""

import functools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.flop_counter import register_flop_formula

from optimizers import kernels

# Rows from which half the work can pay off: public kernels of this kind break even near 1,024 rows
# and are 1.5 to 1.7 times as fast from 2,048 on; one that is tuned for it gains at 768.
SMALLEST = 512
WARM_UP, CALLS = 3, 20  # untimed and timed calls of a kernel
Shape = tuple[int, int, int, int]  # of tiles: side, depth, warps, stages
FIRST: Shape = (128, 64, 8, 3)


def takes(n: int, X: Tensor) -> bool:
    """Whether to try the kernel: tensor cores with half precision, and large matrices."""
    half = X.dtype in (torch.float16, torch.bfloat16)
    if not half or n < SMALLEST or not kernels.installed():
        return False
    return torch.cuda.get_device_capability(X.device)[0] >= 8


def fastest(X_bnk: Tensor) -> Shape | None:
    """The kernel's fastest tile shape for X X^T; None if torch's product is faster.

    Measured once per device, dtype and shape. If nothing can be measured (a tensor without data,
    under the compiler, during graph capture) it is the first shape.
    """
    unknown = isinstance(X_bnk, FakeTensor) or torch.compiler.is_compiling()
    if unknown or torch.cuda.is_current_stream_capturing():
        return FIRST
    return _measured(X_bnk.device, X_bnk.dtype, *X_bnk.shape)


@functools.cache
def _measured(where: torch.device, dtype: torch.dtype, b: int, n: int, k: int) -> Shape | None:
    from optimizers.kernels.symmetric import SHAPES

    X = torch.randn(b, n, k, dtype=dtype, device=where)
    out, want = X.new_empty(b, n, n), X @ X.mT
    best, found = milliseconds(partial(torch.bmm, X, X.mT, out=out)), None
    for shape in SHAPES:
        try:
            spent = milliseconds(partial(symmetric, X, X.mT, None, 1.0, 1.0, 0.0, out, shape))
        except Exception:  # more shared memory than this device has
            continue
        error = (out.float() - want.float()).norm() / want.float().norm()
        if spent < best and error < 4 * torch.finfo(dtype).eps:
            best, found = spent, shape
    return found


def milliseconds(call: Callable[[], object]) -> float:
    """Time of one call among many in a row, by events: the device's work without its waiting."""
    for _ in range(WARM_UP):
        call()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(CALLS):
        call()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / CALLS


@torch.library.custom_op("muon::symmetric", mutates_args=("out",), device_types=("cuda", "cpu"))
def symmetric(
    A: Tensor,
    B: Tensor,
    added: Tensor | None,
    alpha: float,
    beta: float,
    gamma: float,
    out: Tensor,
    shape: Sequence[int],
) -> None:
    """out <- alpha A B + beta added + gamma I, for stacks whose result is symmetric."""
    from optimizers.kernels.symmetric import launch

    launch(A, B, added, alpha, beta, gamma, out, shape)


@symmetric.register_fake
def _(A, B, added, alpha, beta, gamma, out, shape) -> None:
    pass


@register_flop_formula(torch.ops.muon.symmetric)
def _flops(a_shape, b_shape, *args, **kwargs) -> int:
    b, n, k = a_shape
    return int(b * n * (n + 1) * k)

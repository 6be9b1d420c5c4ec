"""Products of matrices whose result is known to be symmetric: each pair of entries computed once.

On a CPU the rows are cut in four and each piece is multiplied from its diagonal on, which is 5/8 of
the work; the rest is mirrored. On a GPU the kernels of the quack package, which gram-newton-schulz
brings, do the same where they are installed.
"""

import functools
import importlib.util
from itertools import pairwise

import torch
from torch import Tensor

PIECES = 4
# Measured in fp32 on two AVX-512 cores: 0.78 of a plain product's time at 768 and 1,024 rows with
# as many columns, 0.69 with four times as many; no gain below 512 rows.
SMALLEST = {"cpu": 512, "cuda": 256}


def symmetric_product(
    A_bnk: Tensor,
    B_bkn: Tensor,
    added_bnn: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """alpha A B + beta added, for stacks whose result is symmetric; `out` may not be an operand."""
    n = A_bnk.shape[-2]
    if symmetric_share(n, A_bnk) == 1:
        return product(A_bnk, B_bkn, added_bnn, alpha, beta, out)
    form = _by_kernels if A_bnk.is_cuda else _by_pieces
    return form(A_bnk, B_bkn, added_bnn, alpha, beta, out)


def symmetric_share(n: int, X: Tensor) -> float:
    """The multiplications of a symmetric product with n rows, of X's kind, as a share of all."""
    if n < SMALLEST.get(X.device.type, n + 1):
        return 1.0
    if X.is_cuda:
        return 0.5 if _kernels_take(X) else 1.0
    return (1 + 1 / PIECES) / 2 if _pieces_take(X) else 1.0


def product(
    A_bnk: Tensor,
    B_bkm: Tensor,
    added_bnm: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """alpha A B + beta added, by torch."""
    if added_bnm is None:
        return torch.bmm(A_bnk, B_bkm, out=out)
    return torch.baddbmm(added_bnm, A_bnk, B_bkm, beta=beta, alpha=alpha, out=out)


def gram_matrix(X_bnm: Tensor, out: Tensor) -> Tensor:
    """X X^T, or X^T X where X is tall: the smaller of the two."""
    if X_bnm.shape[-2] > X_bnm.shape[-1]:
        return symmetric_product(X_bnm.mT, X_bnm, out=out)
    return symmetric_product(X_bnm, X_bnm.mT, out=out)


def short_side_product(
    S_bnn: Tensor, X_bnm: Tensor, added_bnm: Tensor | None = None, *, beta: float = 1.0, out: Tensor
) -> Tensor:
    """S X + beta added for a symmetric S, or X S + beta added where X is tall."""
    if X_bnm.shape[-2] > X_bnm.shape[-1]:
        return product(X_bnm, S_bnn, added_bnm, beta=beta, out=out)
    return product(S_bnn, X_bnm, added_bnm, beta=beta, out=out)


def _pieces_take(A: Tensor) -> bool:
    """Not half precision, where it was not measured; the compiler takes no strided `out`."""
    return A.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling()


def _by_pieces(A, B, added, alpha, beta, out) -> Tensor:
    n = A.shape[-2]
    out = A.new_empty(len(A), n, n) if out is None else out
    edges = [n * i // PIECES for i in range(PIECES + 1)]
    for low, high in pairwise(edges):
        part = None if added is None else added[:, low:high, low:]
        product(A[:, low:high], B[:, :, low:], part, alpha, beta, out=out[:, low:high, low:])
        out[:, high:, low:high].copy_(out[:, low:high, high:].mT)
    return out


@functools.cache
def _kernels_installed() -> bool:
    return importlib.util.find_spec("quack") is not None


def _kernels_take(A: Tensor) -> bool:
    """They are written for half precision on Hopper and later."""
    half = A.dtype in (torch.float16, torch.bfloat16)
    return half and torch.cuda.get_device_capability(A.device)[0] >= 9 and _kernels_installed()


def _by_kernels(A, B, added, alpha, beta, out) -> Tensor:
    from quack.gemm_interface import gemm_symmetric

    return gemm_symmetric(A, B, C=added, out=out, alpha=alpha, beta=beta)

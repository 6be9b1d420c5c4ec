"""Products of matrices with a symmetric result: each pair of entries is computed once.

On a CPU the rows of each matrix are cut into four pieces. Each piece is multiplied from its
diagonal on, which is 5/8 of the work; the rest is mirrored. On a GPU a kernel of ours does half the
work (see gpu.py). Either is used only where it measured faster than the plain product.
"""

import functools
import time
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from optimizers.orthogonalize import gpu

PIECES = 4
# Rows from which pieces can pay off. Times relative to a plain product, measured with one thread of
# an AVX512-BF16 processor: fp32 0.72 at 512 rows, 0.66 to 0.71 from 768 on; bf16 about 1 at 512
# rows and 0.70 to 0.80 from 768 on. Fp16 was not measured.
SMALLEST = {torch.float64: 512, torch.float32: 512, torch.bfloat16: 768}


def symmetric_product(
    A_bnk: Tensor,
    B_bkn: Tensor,
    added_bnn: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 0.0,
    out: Tensor | None = None,
) -> Tensor:
    """alpha A B + beta added + gamma I, for stacks whose result is symmetric; `out` must not be an
    operand."""
    n = A_bnk.shape[-2]
    shape = gpu.fastest(A_bnk) if A_bnk.is_cuda and gpu.takes(n, A_bnk) else None
    if shape is not None:
        out = A_bnk.new_empty(len(A_bnk), n, n) if out is None else out
        gpu.symmetric(A_bnk, B_bkn, added_bnn, alpha, beta, gamma, out, shape)
        return out
    found = (_by_pieces if _pieces_take(n, A_bnk) else product)(
        A_bnk, B_bkn, added_bnn, alpha, beta, out
    )
    if gamma:
        found.diagonal(dim1=-2, dim2=-1).add_(gamma)
    return found


def symmetric_share(n: int, X: Tensor) -> float:
    """Multiplications of a symmetric product with n rows and X's dtype; a full product's are 1."""
    if X.is_cuda:
        return 0.5 if gpu.takes(n, X) else 1.0
    return (1 + 1 / PIECES) / 2 if _pieces_take(n, X) else 1.0


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
        found = torch.bmm(A_bnk, B_bkm, out=out)
        return found if alpha == 1 else found.mul_(alpha)
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


def _pieces_take(n: int, A: Tensor) -> bool:
    """Whether to multiply by pieces; never under the compiler, which rejects a strided `out`."""
    large = A.device.type == "cpu" and n >= SMALLEST.get(A.dtype, n + 1)
    return large and not torch.compiler.is_compiling() and pieces_pay(A.dtype)


@functools.cache
def pieces_pay(dtype: torch.dtype, n: int = 768, k: int = 1536, rounds: int = 5) -> bool:
    """Whether X X^T, X an n x k matrix, is faster by pieces here; 0.02 to 0.2 s, once a process.

    Compares the least processor time of one thread: other processes and waiting threads must not
    change the answer, as all processes of a run need the same one. The two times differ by a
    quarter or more, in either direction.
    """
    best, threads = [float("inf")] * 2, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _disable_current_modes():  # FLOP counters and fake modes must not see this
            X = torch.ones(1, n, k, dtype=dtype)
            out = X.new_empty(1, n, n)
            for _ in range(rounds):
                for i, pieces in enumerate((True, False)):
                    start = time.process_time()
                    (_by_pieces if pieces else product)(X, X.mT, None, 1.0, 1.0, out)
                    best[i] = min(best[i], time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return best[0] < 0.9 * best[1]


def _by_pieces(A, B, added, alpha, beta, out) -> Tensor:
    n = A.shape[-2]
    out = A.new_empty(len(A), n, n) if out is None else out
    edges = [n * i // PIECES for i in range(PIECES + 1)]
    for i in range(len(A)):  # bmm is slow on parts of bf16 matrices
        for low, high in pairwise(edges):
            a, b, part = A[i, low:high], B[i, :, low:], out[i, low:high, low:]
            if added is None:
                torch.mm(a, b, out=part)
                if alpha != 1:
                    part.mul_(alpha)
            else:
                torch.addmm(added[i, low:high, low:], a, b, beta=beta, alpha=alpha, out=part)
            # A copy first: a transposed copy reads contiguous memory faster.
            out[i, high:, low:high].copy_(out[i, low:high, high:].contiguous().mT)
    return out

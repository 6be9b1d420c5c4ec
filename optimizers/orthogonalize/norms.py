"""The norms that matrices are divided by, so that no singular value exceeds 1."""

import torch
from torch import Tensor

from optimizers.orthogonalize.symmetric import gram_matrix
from optimizers.orthogonalize.workspace import Workspace

NORMS = ("frobenius", "schatten4")


def normed_(X_bnm: Tensor) -> Tensor:
    """Divide each matrix, in place, by its Frobenius norm; a zero matrix stays zero.

    Squares of gradients would leave fp32's range below 1e-19 and above 1e19. On a GPU the squares
    are summed in fp64, in three launches. On a CPU that is ten times slower than first scaling the
    largest entry to near 1 by a power of two, which costs no accuracy.
    """
    if X_bnm.is_cuda:
        return in_double_(X_bnm)
    largest = X_bnm.amax((-2, -1), keepdim=True)
    peak = _positive(torch.maximum(largest, -X_bnm.amin((-2, -1), keepdim=True)))
    X_bnm.mul_(torch.exp2(-torch.frexp(peak).exponent.to(X_bnm.dtype)))
    return X_bnm.div_(_positive(torch.linalg.vector_norm(X_bnm, dim=(-2, -1), keepdim=True)))


def in_double_(X_bnm: Tensor) -> Tensor:
    """The same, with norms computed in fp64 and kept in fp32, as few GPUs divide fast in fp64. A
    norm beyond fp32's range, from gradients above 1e34, gives zero."""
    size = torch.linalg.vector_norm(X_bnm, dim=(-2, -1), keepdim=True, dtype=torch.float64)
    dtype = torch.promote_types(X_bnm.dtype, torch.float32)
    least = torch.finfo(dtype).tiny * torch.finfo(dtype).eps  # a zero matrix stays zero
    return X_bnm.div_(torch.add(size, least, out=torch.empty_like(size, dtype=dtype)))


def schatten4_normed_(X_bnm: Tensor, workspace: Workspace) -> Tensor:
    """Divide each matrix, in place, by (sum s^4)^(1/4) = |X X^T|_F^(1/2).

    The divisor is never below the largest singular value and never above the Frobenius norm, so
    small singular values start nearer to 1. Costs one more product. Source:
    kexue.fm/archives/10922.
    """
    n = min(X_bnm.shape[-2:])
    G = gram_matrix(X_bnm, out=workspace.empty("G", (len(X_bnm), n, n), X_bnm.dtype))
    wide = torch.promote_types(X_bnm.dtype, torch.float32)
    size = torch.linalg.vector_norm(G, dim=(-2, -1), keepdim=True, dtype=wide).sqrt()
    return X_bnm.div_(_positive(size).to(X_bnm.dtype))


def _positive(scale: Tensor) -> Tensor:
    return scale.clamp_min(torch.finfo(scale.dtype).tiny)

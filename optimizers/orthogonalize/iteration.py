"""msign by iteration: batched, pure functions on stacks of matrices.

msign(X) = U V^T for X = U S V^T. Shapes in names: n rows, m columns, b matrices in a stack.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizers.coefficients import Triple, per_step
from optimizers.orthogonalize import rounding
from optimizers.orthogonalize.norms import NORMS, normed_, schatten4_normed_
from optimizers.orthogonalize.symmetric import (
    gram_matrix,
    short_side_product,
    symmetric_product,
    symmetric_share,
)
from optimizers.orthogonalize.workspace import Workspace
from optimizers.precision import bf16_pays

DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
METHODS = ("auto", "newton_schulz", "gram", "exact")

# The Gram form computes X again after `first` steps and then after every second step. Its G carries
# a rounding error of one unit relative to its largest eigenvalue, which each step multiplies by
# a^2 (12 for Keller's set), so steep spectra need restarts. Measured against the plain form (four
# sets; Gaussian, steep with condition number 1e6, low rank): with these rules at most 2.5 times its
# error; with X formed only once, 70 times in fp32 and unbounded in bf16.
LARGE = 256  # rows from which errors average out enough for a third step in fp32
SMALLEST_HALF = 128  # below this many rows half precision is 3 times worse, even with restarts


@dataclass(frozen=True)
class Orthogonalizer:
    """How msign is approximated; the settings of conf/orthogonalizer/*.yaml.

    coefficients: a named set, or a list of triples; steps: iterations; dtype: of the iteration
    (fp64, fp32, bf16, fp16, or auto: bf16 if its products are faster than fp32's); method:
    newton_schulz, gram (the same polynomial on the n x n Gram matrix), auto (the one of these two
    with fewer FLOPs for the shape), or exact (SVD, the slow reference); norm: the norm that each
    matrix is first divided by: frobenius, or schatten4; singular_values: (low, high), only with
    exact: each singular value is drawn uniformly from this range instead of being 1 (shows what
    such an inexact result does to training); rounding: fp16 or fp8, only with newton_schulz in
    fp32: rounds the operands of all products first (shows what that precision does to training).
    """

    name: str = "keller"
    coefficients: str | Sequence[Triple] = "keller"
    steps: int = 5
    method: str = "auto"
    dtype: str = "auto"
    norm: str = "frobenius"
    singular_values: tuple[float, float] | None = None
    rounding: str | None = None

    def __post_init__(self) -> None:
        per_step(self.coefficients, self.steps)
        if self.method not in METHODS:
            raise ValueError(
                f"orthogonalizer.method={self.method}: must be one of {', '.join(METHODS)}"
            )
        if self.norm not in NORMS:
            raise ValueError(f"orthogonalizer.norm={self.norm}: must be one of {', '.join(NORMS)}")
        drawn = self.singular_values is not None
        if drawn and not (self.method == "exact" and _is_range(self.singular_values)):
            raise ValueError(
                f"orthogonalizer.singular_values={self.singular_values}: must be two numbers "
                f"above 0, the lower first, and needs orthogonalizer.method=exact"
            )
        if self.dtype not in (*DTYPES, "auto"):
            raise ValueError(
                f"orthogonalizer.dtype={self.dtype}: must be auto or one of {', '.join(DTYPES)}"
            )
        plain = (self.method, self.dtype, self.norm) == ("newton_schulz", "fp32", "frobenius")
        if self.rounding is not None and not (self.rounding in rounding.FORMATS and plain):
            raise ValueError(
                f"orthogonalizer.rounding={self.rounding}: must be "
                f"{' or '.join(rounding.FORMATS)}, and needs method=newton_schulz dtype=fp32 "
                f"norm=frobenius"
            )

    def input_dtype(self, device_type: str) -> torch.dtype:
        """The best dtype to gather a stack in. fp16 lacks the range for gradients before scaling.
        Half precision would fill a null space with rounding errors, which exact must see."""
        dtype = self.iteration_dtype(device_type)
        wide = dtype.itemsize > 2 or (dtype == torch.bfloat16 and self.method != "exact")
        return dtype if wide else torch.float32

    def iteration_dtype(self, device_type: str) -> torch.dtype:
        if self.dtype != "auto":
            return DTYPES[self.dtype]
        return torch.bfloat16 if bf16_pays(device_type) else torch.float32

    def multiplications(self, rows: int, columns: int, device: torch.device) -> float:
        """Multiplications to iterate one matrix on this device; for exact, in proportion."""
        n, m = sorted((rows, columns))
        if n == 1:
            return 0.0
        if self.method == "exact":
            return float(n * n * m)
        X = torch.empty((), dtype=self.iteration_dtype(device.type), device=device).expand(1, n, m)
        triples = per_step(self.coefficients, self.steps)
        return multiplications(X, triples, _form(X, triples, self.method))

    def __call__(
        self,
        X_bnm: Tensor,
        dtype: torch.dtype | None = None,
        workspace: Workspace | None = None,
    ) -> Tensor:
        """msign of each matrix of a stack, iterated in `dtype` (default: the stack's own).

        Norms are computed before the stack is cast; workspace: see `orthogonalize`.
        """
        dtype = dtype or X_bnm.dtype
        if self.method == "exact":
            return msign(X_bnm, self.singular_values).to(dtype)
        triples = per_step(self.coefficients, self.steps)
        return orthogonalize(
            X_bnm, triples, self.method, dtype, workspace, self.norm, self.rounding
        )


def _is_range(pair: Any) -> bool:
    """Two numbers above 0, the lower first."""
    try:
        low, high = pair
        return bool(0 < low <= high)
    except (TypeError, ValueError):
        return False


def msign(X_bnm: Tensor, singular_values: tuple[float, float] | None = None) -> Tensor:
    """The polar factor by SVD: the reference. Directions with zero singular value give zero; NaN or
    infinity gives NaN, only in its own matrix.

    singular_values: the range that each is drawn from, instead of 1, by torch's global generator.
    """
    wide = X_bnm.double() if X_bnm.dtype == torch.float64 else X_bnm.float()
    finite = wide.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    if not finite.all():  # the decomposition would raise an error
        wide = wide.where(finite, 0.0)
    U, S, Vh = torch.linalg.svd(wide, full_matrices=False)
    tolerance = S[..., :1] * max(X_bnm.shape[-2:]) * torch.finfo(S.dtype).eps
    ones = (tolerance < S).to(S.dtype)
    if singular_values is not None:
        low, high = singular_values
        ones = ones * (low + (high - low) * torch.rand_like(S))
    found = ((U * ones.unsqueeze(-2)) @ Vh).to(X_bnm.dtype)
    return found if finite.all() else found.where(finite, torch.nan)


def orthogonalize(
    X_bnm: Tensor,
    triples: list[Triple],
    method: str = "auto",
    dtype: torch.dtype | None = None,
    workspace: Workspace | None = None,
    norm: str = "frobenius",
    rounded_to: str | None = None,
) -> Tensor:
    """Newton-Schulz iteration on a stack of matrices (b, n, m), in `dtype` (default: X's own).

    A single row or column needs no iteration: msign is x / |x|. A zero matrix gives zero; NaN or
    infinity gives NaN, only in its own matrix. With a workspace, X is overwritten and the result
    lies in X or the workspace until the next call with that workspace. rounded_to: see rounding.py.
    """
    X = X_bnm
    if workspace is None:
        workspace = Workspace(X.device)
        X = X.clone(memory_format=torch.contiguous_format)
    X = normed_(X).to(dtype or X.dtype)
    if min(X.shape[-2:]) == 1:
        return X
    if rounded_to is not None:
        return rounding.newton_schulz(X, triples, rounded_to)
    if norm == "schatten4":
        schatten4_normed_(X, workspace)
    return iterate(X, triples, method, workspace)


def iterate(X_bnm: Tensor, triples: list[Triple], method: str, workspace: Workspace) -> Tensor:
    """The iteration itself, for singular values of at most 1; X is overwritten."""
    form = gram if _form(X_bnm, triples, method) == "gram" else newton_schulz
    return form(X_bnm, triples, workspace)


def _form(X_bnm: Tensor, triples: list[Triple], method: str) -> str:
    if method != "auto":
        return method
    return "gram" if gram_is_cheaper(X_bnm, triples) else "newton_schulz"


def newton_schulz(X_bnm: Tensor, triples: list[Triple], workspace: Workspace) -> Tensor:
    """X <- a X + (b G + c G^2) X with G = X X^T: three products per step, two if c is 0.

    X is overwritten.
    """
    X, Y = X_bnm, workspace.empty("Y", X_bnm.shape, X_bnm.dtype)
    G, Z = _gram_sized(X, workspace, "GZ")
    for a, b, c in triples:
        gram_matrix(X, out=G)
        short_side_product(_polynomial(G, 0.0, b, c, out=Z), X, X, beta=a, out=Y)
        X, Y = Y, X
    return X


def gram(X_bnm: Tensor, triples: list[Triple], workspace: Workspace) -> Tensor:
    """The same polynomial, iterated on the n x n Gram matrix; X is overwritten.

    With G = X X^T and Z = a I + b G + c G^2 a step is X <- Z X, G <- Z G Z. The Z's are accumulated
    in Q, and each restart multiplies X by Q once. All are polynomials in G, hence symmetric and
    commuting. Source: github.com/Dao-AILab/gram-newton-schulz.
    """
    X, Y = X_bnm, workspace.empty("Y", X_bnm.shape, X_bnm.dtype)
    G, Z, Q, P = _gram_sized(X, workspace, "GZQP")
    start = 0
    for stop in restarts(X, len(triples)):
        gram_matrix(X, out=G)
        for step in range(start, stop):
            a, b, c = triples[step]
            _polynomial(G, a, b, c, out=Z)
            if step + 1 < stop:
                symmetric_product(G, Z, out=P)
                symmetric_product(Z, P, out=G)
            if step == start:
                Q, Z = Z, Q
            else:
                symmetric_product(Z, Q, out=P)
                Q, P = P, Q
        short_side_product(Q, X, out=Y)
        X, Y = Y, X
        start = stop
    return X


def _gram_sized(X_bnm: Tensor, workspace: Workspace, names: str) -> list[Tensor]:
    b, n = len(X_bnm), min(X_bnm.shape[-2:])
    return [workspace.empty(name, (b, n, n), X_bnm.dtype) for name in names]


def _polynomial(G_bnn: Tensor, a: float, b: float, c: float, out: Tensor) -> Tensor:
    """a I + b G + c G^2."""
    if c != 0:
        return symmetric_product(G_bnn, G_bnn, G_bnn, beta=b, alpha=c, gamma=a, out=out)
    torch.mul(G_bnn, b, out=out).diagonal(dim1=-2, dim2=-1).add_(a)
    return out


def restarts(X_bnm: Tensor, steps: int) -> list[int]:
    """The step numbers after which X is formed; the last number is `steps`."""
    if X_bnm.dtype == torch.float64:
        return [*range(5, steps, 5), steps]
    first = 3 if X_bnm.dtype == torch.float32 and min(X_bnm.shape[-2:]) >= LARGE else 2
    return [*range(first, steps, 2), steps]


def gram_is_cheaper(X_bnm: Tensor, triples: list[Triple]) -> bool:
    """Whether the Gram form needs fewer multiplications here and is exact enough."""
    half = X_bnm.dtype in (torch.bfloat16, torch.float16)
    if half and min(X_bnm.shape[-2:]) < SMALLEST_HALF:
        return False
    return multiplications(X_bnm, triples, "gram") < multiplications(
        X_bnm, triples, "newton_schulz"
    )


def multiplications(X_bnm: Tensor, triples: list[Triple], form: str) -> float:
    """Multiplications of numbers by which a form (gram, newton_schulz) iterates one matrix of X."""
    n, m = sorted(X_bnm.shape[-2:])
    steps, squares = len(triples), sum(c != 0 for _, _, c in triples)
    once = symmetric_share(n, X_bnm)  # cost of a symmetric product relative to a full one
    if form == "newton_schulz":
        return steps * (1 + once) * n * n * m + squares * once * n**3
    segments = len(restarts(X_bnm, steps))
    small_products = squares + (steps - segments) + 2 * (steps - segments)
    return segments * (1 + once) * n * n * m + small_products * once * n**3

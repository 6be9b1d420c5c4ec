"""The matrices of a laboratory case, with their exact singular values and msign.

A problem is a source and a shape. Its spectra are available at once, for any size; its matrices are
formed only to run the iteration itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.laboratory import momentum as saved
from bench.laboratory import spectra
from bench.laboratory.momentum import Member
from bench.laboratory.settings import Settings, Source
from optimizers.orthogonalize import msign

LARGEST = 1024  # matrices are formed and iterated up to this smaller side
MEMORY = 2**27  # the most numbers in a stack of matrices: 1 GB
WORK = 2**31  # default n^2 m of a stack, which limits its number of matrices


class Matrices(NamedTuple):
    """fp64 stacks: the matrices, their exact msign, their singular values (descending)."""

    X_bnm: Tensor
    msign_bnm: Tensor
    s_bk: NDArray[np.float64]


@dataclass
class Problem:
    """source: its name in records; spectra: (samples, min(n, m)), each row of 2-norm 1."""

    source: str
    shape: tuple[int, int]
    spectra: NDArray[np.float64]
    form: Callable[[], Matrices] | None  # None if the shape is too large for matrices
    details: dict[str, Any] = field(default_factory=dict)

    def matrices(self) -> Matrices:
        """The matrices; only for a shape that is not too large."""
        assert self.form is not None
        return self.form()


def problems(settings: Settings) -> Iterator[Problem]:
    """Every source in every shape, one at a time; momenta in their own shapes.

    If there are no momenta to read, it raises UserError at once, not at the first problem.
    """
    wanted = any(source.kind == "momentum" for source in settings.sources)
    return _each(settings, momentum(settings) if wanted else iter(()))


def _each(settings: Settings, of_momentum: Iterator[Problem]) -> Iterator[Problem]:
    for source in settings.sources:
        if source.kind == "momentum":
            yield from of_momentum
            continue
        for shape in settings.shapes:
            yield random(source, shape, settings.samples, settings.seed)


def random(source: Source, shape: tuple[int, int], samples: int | None, seed: int) -> Problem:
    n, m = shape
    k = min(n, m)
    count = samples or min(1000, max(8, 2**16 // k))
    if source.kind == "gaussian":
        rows = spectra.gaussian(n, m, count, seed)
    else:
        rows = prescribed(source, k, count, seed)
    few = min(samples or min(8, max(2, WORK // (k * n * m))), MEMORY // (n * m))
    formable = k <= LARGEST and few > 0
    form = (lambda: formed(source, shape, few, seed)) if formable else None
    return Problem(str(source), shape, rows, form)


def prescribed(source: Source, n: int, samples: int, seed: int) -> NDArray[np.float64]:
    """Spectra of a source whose law needs a number."""
    assert source.value is not None
    return spectra.prescribed(source.kind, n, source.value, samples, seed)


def formed(source: Source, shape: tuple[int, int], samples: int, seed: int) -> Matrices:
    """Random matrices: with Gaussian entries, or with a given spectrum between random bases."""
    n, m = shape
    k = min(n, m)
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(samples, *size, dtype=torch.float64, generator=generator)

    if source.kind == "gaussian":
        return decomposed(normal(n, m))
    s = prescribed(source, k, samples, seed)
    U = torch.linalg.qr(normal(n, k)).Q
    V = torch.linalg.qr(normal(m, k)).Q
    S = torch.from_numpy(s).unsqueeze(-2)
    return Matrices((U * S) @ V.mT, (U * (S > 0)) @ V.mT, s)


def frobenius(X_bnm: Tensor) -> Tensor:
    """The Frobenius norm of each matrix of a stack, (b,)."""
    return torch.linalg.vector_norm(X_bnm, dim=(-2, -1))


def decomposed(X_bnm: Tensor) -> Matrices:
    """Given matrices, divided by their Frobenius norms; rank-deficient ones get zeros in s."""
    X = X_bnm / frobenius(X_bnm)[:, None, None]
    s = torch.linalg.svdvals(X)
    s[s < s[:, :1] * max(X.shape[-2:]) * torch.finfo(s.dtype).eps] = 0.0
    return Matrices(X, msign(X), s.numpy())


# momentum of training runs ---------------------------------------------------------------------


def momentum(settings: Settings) -> Iterator[Problem]:
    """The matrices that a run's optimizer got, by role, layer and shape."""
    groups: dict[tuple[Path, str, int | None, tuple[int, int]], list[Member]] = {}
    for file in saved.files(settings.momentum, settings.results_dir):
        for one in saved.members(file, settings.roles, settings.layers):
            n, m = one.matrix.shape
            groups.setdefault((file, one.role, one.layer, (n, m)), []).append(one)
    return (of_momentum(*key, members) for key, members in groups.items())


def of_momentum(
    file: Path, role: str, layer: int | None, shape: tuple[int, int], members: list[Member]
) -> Problem:
    matrices = decomposed(torch.stack([one.matrix.double() for one in members]))
    where = "" if layer is None else f"_layer{layer}"
    details = {
        "role": role,
        "layer": layer,
        "parameters": sorted({one.parameter for one in members}),
        "momentum": str(file),
    }
    form = (lambda: matrices) if min(shape) <= LARGEST else None
    stem = file.stem if file.stem.isdecimal() else f"_{file.stem}"  # for a run: the step
    return Problem(f"momentum{stem}_{role}{where}", shape, matrices.s_bk, form, details)

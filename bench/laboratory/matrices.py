"""The matrices a laboratory case is about, with their exact singular values and msign.

A problem is a source and a shape. Its spectra are there at once, up to any size; its matrices are
formed only when the iteration itself is to be run.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.laboratory import spectra
from bench.laboratory.settings import Settings, Source
from bench.settings.errors import UserError
from optimizers.orthogonalize import msign
from optimizers.views import gather

LARGEST = 1024  # the smaller side up to which matrices are formed and iterated
MEMORY = 2**27  # the most numbers in a stack of them: 1 GB
WORK = 2**31  # n^2 m of a stack whose number of matrices was not asked for


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
    form: Callable[[], Matrices] | None  # None where the shape is too large for matrices
    details: dict[str, Any] = field(default_factory=dict)

    def matrices(self) -> Matrices:
        """Formed: only of a shape that is not too large."""
        assert self.form is not None
        return self.form()


def problems(settings: Settings) -> Iterator[Problem]:
    """Every source in every shape, one at a time; momentum in its own shapes.

    Raises UserError at once, not at the first problem, where there is no momentum to read.
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
    """Spectra of a source that has a number, which its law needs."""
    assert source.value is not None
    return spectra.prescribed(source.kind, n, source.value, samples, seed)


def formed(source: Source, shape: tuple[int, int], samples: int, seed: int) -> Matrices:
    """Random matrices: Gaussian entries, or a prescribed spectrum between random bases."""
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
    """Given matrices, each divided by its Frobenius norm; rank-deficient ones get zeros in s."""
    X = X_bnm / frobenius(X_bnm)[:, None, None]
    s = torch.linalg.svdvals(X)
    s[s < s[:, :1] * max(X.shape[-2:]) * torch.finfo(s.dtype).eps] = 0.0
    return Matrices(X, msign(X), s.numpy())


# momentum of a training run --------------------------------------------------------------------


def momentum(settings: Settings) -> Iterator[Problem]:
    """The matrices that a run's optimizer saw, by role, layer and shape."""
    file = momentum_file(settings.momentum, settings.results_dir)
    rows = routing(file)
    roles: dict[str, str] = {row["name"]: row["role"] for row in rows}
    groups: dict[tuple[str, int | None, tuple[int, int]], list[tuple[str, Tensor]]] = {}
    with opened(file) as saved:
        views = json.loads((saved.metadata() or {}).get("views", "[]"))
        seen = {name for entry in views for name in entry["names"]}
        views += [{"names": [name]} for name in sorted(set(saved.keys()) - seen)]
        for entry in views:
            name = entry["names"][0]
            role, layer = roles.get(name), layer_of(name)
            asked = role in settings.roles and layer in (settings.layers or [layer])
            if role is not None and asked:
                for matrix in read(entry, [saved.get_tensor(one) for one in entry["names"]]):
                    n, m = matrix.shape
                    groups.setdefault((role, layer, (n, m)), []).append((name, matrix))
    if not groups:
        layers = sorted({k for name in roles if (k := layer_of(name)) is not None})
        raise UserError(
            f"roles={','.join(settings.roles)} layers={settings.layers}: no matrix of {file} is "
            f"that; it has the roles {', '.join(sorted(set(roles.values())))} and layers {layers}"
        )
    return (of_momentum(file, *key, members) for key, members in groups.items())


def of_momentum(
    file: Path, role: str, layer: int | None, shape: tuple[int, int], members: list
) -> Problem:
    X = torch.stack([matrix.double() for _, matrix in members])
    X = X[X.abs().amax((1, 2)) > 0]
    if not len(X) or not X.isfinite().all():
        raise UserError(f"momentum={file}: {members[0][0]} is zero or not finite")
    matrices = decomposed(X)
    where = "" if layer is None else f"_layer{layer}"
    details = {
        "role": role,
        "layer": layer,
        "parameters": sorted({name for name, _ in members}),
        "momentum": str(file),
    }
    form = (lambda: matrices) if min(shape) <= LARGEST else None
    return Problem(f"momentum{file.stem}_{role}{where}", shape, matrices.s_bk, form, details)


def read(entry: dict[str, Any], tensors: list[Tensor]) -> list[Tensor]:
    """The matrices of a view as Muon reads them; without a view, a tensor that is a matrix."""
    if "view" in entry:
        return [block for block in gather(entry["view"], tensors) if min(block.shape) > 1]
    return [t for t in tensors if t.ndim == 2 and min(t.shape) > 1]


def layer_of(name: str) -> int | None:
    """The first number in a parameter's name."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def momentum_file(given: str | None, results_dir: str) -> Path:
    """The file meant by a run's folder (its last step), or by a file; or the newest there is."""
    hint = "train with train.save_momentum_every=N first"
    if given is None:
        files = list(Path(results_dir).glob("runs/*/momentum/*.safetensors"))
        if not files:
            raise UserError(f"sources=momentum: no run in {results_dir}/runs has any; {hint}")
        folder = max(files, key=lambda file: file.stat().st_mtime).parent
    else:
        path = Path(given).expanduser()
        if path.is_file() and path.suffix == ".safetensors":
            return path
        folder = path if path.name == "momentum" else path / "momentum"
    files = [file for file in folder.glob("*.safetensors") if file.stem.isdecimal()]
    if not files:
        raise UserError(f"momentum={given}: there is no momentum/*.safetensors in it; {hint}")
    return max(files, key=lambda file: int(file.stem))


def routing(file: Path) -> list[dict[str, Any]]:
    path = file.parent.parent / "routing.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"momentum={file}: {path} is missing or broken; it has the roles") from None


def opened(file: Path):
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"momentum={file}: cannot be read: {error}") from None

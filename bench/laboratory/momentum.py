"""Momenta of training runs as matrices: the files, and how Muon reads them.

A file is momentum/STEP.safetensors of a run, whose routing.json describes each parameter, or a
sample of such files with the same description in its own metadata (results/ortho/momenta/).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.settings.errors import UserError
from optimizers.views import gather

HINT = "train with train.save_momentum_every=N first, or take momentum=results/ortho/momenta"


class Member(NamedTuple):
    """A matrix as Muon reads it, (fan-out, fan-in).

    kind: q, k, v, attention output, mlp in, mlp out; for roles other than hidden, the role.
    """

    parameter: str
    role: str
    layer: int | None
    kind: str
    matrix: Tensor


def members(file: Path, roles: list[str], layers: list[int] | None) -> list[Member]:
    """The nonzero matrices of these roles and layers, in the order of the file's views.

    Raises UserError if the file has none, is broken, or has values that are not finite.
    """
    with opened(file) as saved:
        rows = {row["name"]: row for row in routing(file, saved.metadata() or {})}
        found = [
            member
            for entry in views(saved)
            if (first := entry["names"][0]) in rows
            and rows[first]["role"] in roles
            and (not layers or layer_of(first) in layers)
            for member in read(entry, rows, [saved.get_tensor(one) for one in entry["names"]])
        ]
    if not found:
        there = sorted({k for name in rows if (k := layer_of(name)) is not None})
        raise UserError(
            f"roles={','.join(roles)} layers={layers}: no matrix of {file} is that; it has the "
            f"roles {', '.join(sorted({row['role'] for row in rows.values()}))} and layers {there}"
        )
    present = [one for one in found if one.matrix.any()]
    if not present or not all(one.matrix.isfinite().all() for one in present):
        raise UserError(f"momentum={file}: {found[0].parameter} is zero or not finite")
    return present


def views(saved: Any) -> list[dict[str, Any]]:
    """How Muon reads the file's tensors; tensors without a view follow separately."""
    found = json.loads((saved.metadata() or {}).get("views", "[]"))
    there = set(saved.keys())
    found = [entry for entry in found if there.issuperset(entry["names"])]
    seen = {name for entry in found for name in entry["names"]}
    return found + [{"names": [name]} for name in sorted(there - seen)]


def read(
    entry: dict[str, Any], rows: dict[str, dict[str, Any]], tensors: list[Tensor]
) -> Iterator[Member]:
    """The matrices of a view as Muon reads them; without a view, the tensor if it is a matrix."""
    matrices = gather(entry["view"], tensors) if "view" in entry else tensors
    first = rows[entry["names"][0]]
    reasons = [rows[name]["reason"] for name in entry["names"]]
    shapes = [tuple(matrix.shape) for matrix in matrices]
    named = kinds(reasons, shapes) if first["role"] == "hidden" else [first["role"]] * len(shapes)
    for kind, matrix in zip(named, matrices, strict=True):
        if matrix.ndim == 2 and min(matrix.shape) > 1:
            yield Member(first["name"], first["role"], layer_of(first["name"]), kind, matrix)


def kinds(reasons: list[str], shapes: list[tuple[int, ...]]) -> list[str]:
    """The kind of each matrix of a hidden view, from the routing of its tensors: q, k, v, or
    several of these in one matrix, as qkv; others by their shape."""
    said = " ".join(reasons)
    parts = [p for run in re.findall(r"(\b[qkv](?:, [qkv])*) of \d+ heads", said)
             for p in run.split(", ")]  # fmt: skip
    if parts:
        each, rest = divmod(len(shapes), len(parts))
        joined = rest or not each
        return ["".join(parts)] * len(shapes) if joined else [p for p in parts for _ in range(each)]
    if "output projection" in said:
        return ["attention output"] * len(shapes)
    return ["mlp in" if n > m else "mlp out" if n < m else "square" for n, m in shapes]


def layer_of(name: str) -> int | None:
    """The first number in a parameter's name."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def files(given: str | None, results_dir: str) -> list[Path]:
    """The files selected by a run's folder (its last step), by a file, or by a folder of samples;
    null: the last step of the newest run."""
    if given is None:
        saved = list(Path(results_dir).glob("runs/*/momentum/*.safetensors"))
        if not saved:
            raise UserError(f"sources=momentum: no run in {results_dir}/runs has any; {HINT}")
        path = max(saved, key=lambda file: file.stat().st_mtime).parent
    else:
        path = Path(given).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        return [path]
    numbered = steps(path)
    found = numbered[-1:] or sorted(path.glob("*.safetensors"))
    if not found:
        raise UserError(f"momentum={given}: there is no momentum/*.safetensors in it; {HINT}")
    return found


def steps(run: Path) -> list[Path]:
    """A run's files, the first step first; also accepts its folder momentum."""
    folder = run if run.name == "momentum" else run / "momentum"
    saved = [file for file in folder.glob("*.safetensors") if file.stem.isdecimal()]
    return sorted(saved, key=lambda file: int(file.stem))


def routing(file: Path, metadata: dict[str, str]) -> list[dict[str, Any]]:
    path = file.parent.parent / "routing.json"
    try:
        return json.loads(metadata.get("routing") or path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"momentum={file}: {path} is missing or broken; it has the roles") from None


def opened(file: Path):
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"momentum={file}: cannot be read: {error}") from None

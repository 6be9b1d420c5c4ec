"""Saves and loads a tree of tensors and plain data: atomically, with checksums, without pickle.

A checkpoint is a folder `step-00000050/` of three files: `tensors.safetensors` (every tensor,
named by its path in the tree), `tree.json` (everything else, and the checkpoint's identity) and
`SHA256SUMS` of the two. In a run of many processes each writes one file of tensors (shards.py); any
number of processes can read both forms.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bench.processes.world import ALONE, World
from bench.records import files
from bench.training import trees
from optimizers.sharding.regions import local

TENSORS, TREE, SUMS = "tensors.safetensors", "tree.json", "SHA256SUMS"
UNFINISHED = "unfinished-"


class Damaged(Exception):
    """A checkpoint whose files differ from what was written; the message says which and how."""


def save(folder: Path, step: int, tree: dict, world: World = ALONE, keep: int = 2) -> Path:
    """Write `tree` to `folder/step-<step>/` and return that path; keep the newest `keep`.

    `tree` nests dicts (keys int or str), lists, tuples and sets of None, bool, int, float, str,
    bytes, dtypes and dense tensors of any device. Only a complete checkpoint ever gets its final
    name, so a kill at any moment leaves earlier checkpoints intact. Checkpoints of later steps,
    which the run did not resume from, are removed. All processes of a run take part; the first one
    writes what is not sharded.
    Raises OSError with a path if the disk refuses (nothing is left behind), TypeError for anything
    else in the tree.
    """
    final = folder / f"step-{step:08d}"
    unfinished = folder / (UNFINISHED + final.name)
    tensors: dict[str, torch.Tensor] = {}
    plain = trees.encode(tree, (), tensors)
    try:
        world.agreed(lambda: _begin(unfinished))
        if world.size > 1:
            from bench.training import shards

            shards.write(unfinished, tensors)
        else:
            write_tensors(unfinished / TENSORS, tensors)
        world.agreed(lambda: _finish(unfinished, final, plain))
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if world.leads:
        steps = _steps(folder)
        for other in [s for s in steps if s > step] + [s for s in steps if s <= step][keep:]:
            shutil.rmtree(steps[other], ignore_errors=True)
        shutil.rmtree(folder / f"{UNFINISHED}old-{final.name}", ignore_errors=True)
    return final


def newest(
    folder: Path,
    warn: Callable[[str], None],
    world: World = ALONE,
    like: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> tuple[int, dict] | None:
    """The step and tree of the newest intact checkpoint in `folder`, or None.

    Intact means that all its files are as written, for this step, by the run that owns this folder.

    Tensors are loaded on the CPU, in memory of their own. If `like` has a tensor of the same shape
    under their name, or under its part before the last slash, they are sharded like that tensor.
    Each damaged checkpoint on the way is reported through `warn` in one line.
    """
    found = world.agreed(lambda: _newest_intact(folder, warn))
    if found is None:
        return None
    step, path, plain = found
    return step, trees.decode(plain, _read_tensors(path, world, like))


def _newest_intact(folder: Path, warn: Callable[[str], None]) -> tuple[int, Path, Any] | None:
    """Step, folder and plain part of the newest checkpoint with valid checksums."""
    damaged = []
    found = None
    for step, path in _steps(folder).items():
        try:
            found = step, path, _read_plain(path)
            break
        except Damaged as damage:
            damaged.append(f"checkpoint {path.name} is damaged ({damage})")
    instead = f"using step-{found[0]:08d}" if found else "starting from the beginning"
    for line in damaged:
        warn(f"{line}; {instead}")
    return found


def _begin(unfinished: Path) -> None:
    """Make an empty folder to write in; remove what killed processes have left."""
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    for leftover in unfinished.parent.glob(UNFINISHED + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir()


def _finish(unfinished: Path, final: Path, plain: Any) -> None:
    """Write the plain data and the checksums, and give the folder its final name."""
    names = sorted(file.name for file in unfinished.iterdir())
    _write_text(unfinished / TREE, json.dumps(_identity(final) | {"files": names, "tree": plain}))
    sums = (f"{_synced_digest(unfinished / name)}  {name}\n" for name in [*names, TREE])
    _write_text(unfinished / SUMS, "".join(sums))
    _synced_digest(unfinished / SUMS)
    _sync(unfinished)
    if final.exists():  # damaged, or from before a resume: replaced
        final.rename(final.with_name(f"{UNFINISHED}old-{final.name}"))
    unfinished.rename(final)
    _sync(final.parent)


def _identity(final: Path) -> dict[str, Any]:
    """A checkpoint's identity, from its path: the cell (the name of the run's folder) and the step.
    A checkpoint copied from elsewhere states a different one."""
    return {"of": final.parent.parent.name, "step": int(final.name.removeprefix("step-"))}


def _write_text(path: Path, text: str) -> None:
    with files.naming(path):
        path.write_text(text, encoding="ascii")


def _synced_digest(path: Path) -> str:
    """A file's sha256, after flushing the file to disk."""
    with files.naming(path), path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_plain(folder: Path) -> Any:
    """The plain part of a checkpoint. Raises Damaged unless it is complete and belongs here."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii", errors="replace").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        _check(folder, [TREE], sums)
        found = files.read_json(folder / TREE)
        if "files" not in found:
            raise Damaged(f"{TREE}: of an earlier form")
        _check(folder, found["files"], sums)
    except OSError as error:
        name = Path(error.filename or folder).name
        raise Damaged(f"{name}: {error.strerror or error}") from error
    if any(found[key] != value for key, value in _identity(folder).items()):
        raise Damaged(f"{TREE}: of {found['of']}, step {found['step']}")
    return found["tree"]


def _check(folder: Path, names: list[str], sums: dict[str, str]) -> None:
    """Raise Damaged unless the files match SHA256SUMS."""
    for name in names:
        if name not in sums:
            raise Damaged(f"{SUMS}: without {name}")
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sums[name]:
                raise Damaged(f"{name}: checksum differs")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        tensor = local(tensor.detach()).cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if pointer in seen else tensor  # the library forbids sharing
        seen.add(pointer)
    with plain_refusal(path):
        save_file(own, path)


@contextmanager
def plain_refusal(path: Path) -> Iterator[None]:
    """Raises OSError for a full disk, which safetensors reports only as text."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def _read_tensors(folder: Path, world: World, like: Mapping) -> dict[str, torch.Tensor]:
    """The tensors in memory of their own: the library maps the file, which may be removed."""
    if world.size == 1 and world.mesh is None and (folder / TENSORS).exists():
        return {name: tensor.clone() for name, tensor in load_file(folder / TENSORS).items()}
    from bench.training import shards

    return shards.read(folder, like, world.size)


def _steps(folder: Path) -> dict[int, Path]:
    """Complete checkpoints by step, the newest first."""
    found = ((re.fullmatch(r"step-(\d{8,})", path.name), path) for path in folder.glob("step-*"))
    return dict(sorted(((int(name[1]), path) for name, path in found if name), reverse=True))


def _sync(path: Path) -> None:
    """Flush a folder's entries to disk; a rename is safe only after that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Save and load a tree of tensors and plain data: atomically, with checksums, without pickle.

A checkpoint is a folder `step-00000050/` of three files: `tensors.safetensors` (every tensor,
named by its path in the tree), `tree.json` (everything else, and what the checkpoint is of) and
`SHA256SUMS` of the two. A run of many processes writes one file of tensors each (shards.py); any
number of processes can read both.
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
    """A checkpoint whose files are not what was written; the message says which and how."""


def save(folder: Path, step: int, tree: dict, world: World = ALONE, keep: int = 2) -> Path:
    """Write `tree` to `folder/step-<step>/` and return that path; keep the newest `keep`.

    `tree` nests dicts (keys int or str), lists, tuples and sets of None, bool, int, float, str,
    bytes, dtypes and dense tensors of any device. Only a complete checkpoint ever bears its final
    name, so a kill at any moment leaves the ones before intact. Checkpoints of later steps, from
    which a run did not go on, are removed. All processes of a run take part; what is not cut is
    taken from the first.
    Raises OSError with a path where the disk refuses (nothing is left behind), TypeError for
    anything else in the tree.
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
            _write_tensors(unfinished / TENSORS, tensors)
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

    Intact: all its files are as they were written, for this step, by the run whose folder this is.

    Tensors come back on the CPU, in memory of their own, or cut over the processes as the tensor
    of the same shape that `like` has under their name, or its part before the last slash. Every
    damaged checkpoint on the way is reported through `warn` in one line.
    """
    found = world.agreed(lambda: _newest_intact(folder, warn))
    if found is None:
        return None
    step, path, plain = found
    return step, trees.decode(plain, _read_tensors(path, world, like))


def _newest_intact(folder: Path, warn: Callable[[str], None]) -> tuple[int, Path, Any] | None:
    """Step, folder and plain part of the newest checkpoint whose checksums hold."""
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
    """An empty folder to write in; what kills have left goes."""
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    for leftover in unfinished.parent.glob(UNFINISHED + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir()


def _finish(unfinished: Path, final: Path, plain: Any) -> None:
    """Write what is no tensor and the checksums, and give the folder its final name."""
    names = sorted(file.name for file in unfinished.iterdir())
    _write_text(unfinished / TREE, json.dumps(_identity(final) | {"files": names, "tree": plain}))
    sums = (f"{_synced_digest(unfinished / name)}  {name}\n" for name in [*names, TREE])
    _write_text(unfinished / SUMS, "".join(sums))
    _synced_digest(unfinished / SUMS)
    _sync(unfinished)
    if final.exists():  # damaged, or from before a resume: the new one takes its place
        final.rename(final.with_name(f"{UNFINISHED}old-{final.name}"))
    unfinished.rename(final)
    _sync(final.parent)


def _identity(final: Path) -> dict[str, Any]:
    """What a checkpoint is of, by where it lies: the cell (a run's folder bears its name) and the
    step. One that was copied from elsewhere says something else."""
    return {"of": final.parent.parent.name, "step": int(final.name.removeprefix("step-"))}


def _write_text(path: Path, text: str) -> None:
    with files.naming(path):
        path.write_text(text, encoding="ascii")


def _synced_digest(path: Path) -> str:
    """A file's sha256, once it is on the disk itself."""
    with files.naming(path), path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_plain(folder: Path) -> Any:
    """The plain part of a checkpoint. Raises Damaged unless it is whole and belongs here."""
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
    """Raise Damaged unless the files are what SHA256SUMS says."""
    for name in names:
        if name not in sums:
            raise Damaged(f"{SUMS}: without {name}")
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sums[name]:
                raise Damaged(f"{name}: checksum differs")


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        tensor = local(tensor.detach()).cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if pointer in seen else tensor  # the library wants no sharing
        seen.add(pointer)
    with plain_refusal(path):
        save_file(own, path)


@contextmanager
def plain_refusal(path: Path) -> Iterator[None]:
    """A full disk as OSError: safetensors says it in words."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def _read_tensors(folder: Path, world: World, like: Mapping) -> dict[str, torch.Tensor]:
    """The tensors in memory of their own: the library maps the file, which may soon be removed."""
    if world.size == 1 and world.mesh is None and (folder / TENSORS).exists():
        return {name: tensor.clone() for name, tensor in load_file(folder / TENSORS).items()}
    from bench.training import shards

    return shards.read(folder, like, world.size)


def _steps(folder: Path) -> dict[int, Path]:
    """Complete checkpoints by step, newest first."""
    found = ((re.fullmatch(r"step-(\d{8,})", path.name), path) for path in folder.glob("step-*"))
    return dict(sorted(((int(name[1]), path) for name, path in found if name), reverse=True))


def _sync(path: Path) -> None:
    """Put a folder's entries on the disk itself, as a rename is only safe after that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

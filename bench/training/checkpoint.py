"""Save and load a tree of tensors and plain data: atomically, with checksums, without pickle.

A checkpoint is a folder `step-00000050/` of three files: `tensors.safetensors` (every tensor,
named by its path in the tree), `tree.json` (everything else) and `SHA256SUMS` of the two. A run of
many processes writes one file of tensors each (shards.py); any number of processes can read both.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bench.processes.world import ALONE, World
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
    Raises OSError where the disk refuses (nothing is left behind), TypeError for anything else
    in the tree.
    """
    final = folder / f"step-{step:08d}"
    unfinished = folder / (UNFINISHED + final.name)
    tensors: dict[str, torch.Tensor] = {}
    plain = json.dumps(_encode(tree, (), tensors))
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

    Tensors come back on the CPU, in memory of their own, or cut over the processes as the tensor
    of the same shape that `like` has under their name, or its part before the last slash. Every
    damaged checkpoint on the way is reported through `warn` in one line.
    """
    found = world.agreed(lambda: _newest_intact(folder, warn))
    if found is None:
        return None
    step, path, plain = found
    return step, _decode(plain, _read_tensors(path, world, like))


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


def _finish(unfinished: Path, final: Path, plain: str) -> None:
    """Write what is no tensor and the checksums, and give the folder its final name."""
    (unfinished / TREE).write_text(plain, encoding="ascii")
    files = sorted(unfinished.iterdir())
    sums = "".join(f"{_synced_digest(file)}  {file.name}\n" for file in files)
    (unfinished / SUMS).write_text(sums, encoding="ascii")
    _synced_digest(unfinished / SUMS)
    _sync(unfinished)
    if final.exists():  # damaged, or from before a resume: the new one takes its place
        final.rename(final.with_name(f"{UNFINISHED}old-{final.name}"))
    unfinished.rename(final)
    _sync(final.parent)


def _synced_digest(path: Path) -> str:
    """A file's sha256, once it is on the disk itself."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_plain(folder: Path) -> Any:
    """The plain part of a checkpoint. Raises Damaged unless all checksums hold."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii", errors="replace").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        for name in {TREE, *sums}:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sums.get(name):
                    raise Damaged(f"{name}: checksum differs")
        return json.loads((folder / TREE).read_text(encoding="ascii"))
    except OSError as error:
        name = Path(error.filename or folder).name
        raise Damaged(f"{name}: {error.strerror or error}") from error


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        tensor = local(tensor.detach()).cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if pointer in seen else tensor  # the library wants no sharing
        seen.add(pointer)
    try:
        save_file(own, path)
    except SafetensorError as error:  # a full disk comes as text
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


def _encode(node: Any, path: tuple, tensors: dict[str, torch.Tensor]) -> Any:
    """The JSON of a node; its tensors go into `tensors`, named by their path.

    Lists and scalars stand for themselves; a dict is a list of pairs, since JSON would make its
    int keys strings. Python writes and reads floats exactly, NaN and infinities included.
    """
    if isinstance(node, torch.Tensor):
        if node.layout is not torch.strided:
            raise TypeError(f"{_join(path)}: a {node.layout} tensor cannot be saved")
        name = _join(path)
        while name in tensors:  # {1: a, "1": b}
            name += "'"
        tensors[name] = node.detach()
        return {"tensor": name}
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, int | str):
                raise TypeError(f"{_join(path)}: key {key!r} is neither int nor str")
        return {"dict": [[key, _encode(node[key], (*path, key), tensors)] for key in node]}
    if isinstance(node, list | tuple | set):
        items = [_encode(item, (*path, i), tensors) for i, item in enumerate(node)]
        if isinstance(node, list):
            return items
        return {"set" if isinstance(node, set) else "tuple": items}
    if isinstance(node, bytes):
        return {"bytes": node.hex()}
    if isinstance(node, torch.dtype):
        return {"dtype": str(node).removeprefix("torch.")}
    if node is None or isinstance(node, int | float | str):
        return node
    raise TypeError(f"{_join(path)}: a {type(node).__name__} cannot be saved in a checkpoint")


def _decode(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "set":
        return {_decode(item, tensors) for item in content}
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dtype":
        return getattr(torch, content)
    return {key: _decode(value, tensors) for key, value in content}


def _join(path: tuple) -> str:
    """`("model", "weight", 0)` as `/model/weight/0`, in ASCII."""
    return "".join(f"/{part}" for part in path).encode("ascii", "backslashreplace").decode()


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

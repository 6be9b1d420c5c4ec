"""Prepared arrays on disk: written once, checked, and memory-mapped afterwards.

An entry is a JSON manifest, `<key>.json`, and one raw file per array. Files are written to a
temporary folder and then moved, the manifest last: an entry without a manifest does not count.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np

CHECKED_BYTES = 64 * 2**20  # checked at the start of each file: all shipped data, in milliseconds

Chunks = Iterator[tuple[str, np.ndarray]]


def folder() -> Path:
    """$XDG_CACHE_HOME/muonbench, or ~/.cache/muonbench. Raises OSError without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muonbench"
    except RuntimeError as error:  # a user without a home entry, as in containers
        raise OSError(errno.ENOENT, str(error)) from None


def key(*facts: object) -> str:
    """The key of something that `facts` (plain data) describe completely."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def load(key: str, names: Collection[str], build: Callable[[], Chunks]) -> dict[str, np.ndarray]:
    """The arrays of the entry `key`, read-only; built and stored if it is missing or damaged.

    `build()` yields (array name, chunk) pairs, at least one for each of `names`; the chunks of a
    name are concatenated along dimension 0 in their order. Without a writable folder the arrays
    stay in memory.
    """
    try:
        if arrays := _read(key, names):
            return arrays
        with _locked(key):
            # Another process may have built it while this one was waiting for the lock.
            return _read(key, names) or _write(key, build())
    except (OSError, NotImplementedError) as error:  # the latter: a disk without locks
        reason = getattr(error, "strerror", None) or error
        print(f"warning: prepared data stays in memory, not kept ({reason})", file=sys.stderr)
        return _join(build())


def _read(key: str, names: Collection[str]) -> dict[str, np.ndarray] | None:
    """The entry, or None if it is missing or damaged; a damaged one is reported on stderr."""
    manifest = folder() / f"{key}.json"
    if not os.path.isfile(manifest):
        return None
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
        return {name: _map(folder() / f"{key}.{name}", **entries[name]) for name in names}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        print(f"note: the cached data {manifest} is damaged; building it again", file=sys.stderr)
        with contextlib.suppress(OSError):
            manifest.unlink()
        return None


def _map(path: Path, dtype: str, shape: list[int], digest: str) -> np.ndarray:
    array = np.memmap(path, dtype=dtype, mode="r", shape=tuple(shape))
    if array.nbytes != path.stat().st_size or _digest(path) != digest:
        raise ValueError(f"{path} is damaged")
    return array


@contextlib.contextmanager
def _locked(key: str) -> Iterator[None]:
    """Let one of several processes build the entry. Raises OSError if the folder is unusable."""
    from filelock import FileLock

    folder().mkdir(parents=True, exist_ok=True)
    with FileLock(folder() / f"{key}.lock"):
        yield


def _write(key: str, chunks: Chunks) -> dict[str, np.ndarray]:
    """Write the chunks as they arrive, so that an entry may be larger than memory."""
    for left_behind in folder().glob(f"{key}.*/"):  # by a killed process
        shutil.rmtree(left_behind)
    manifest: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix=f"{key}.", dir=folder()) as temporary:
        with contextlib.ExitStack() as stack:
            files = {}
            for name, chunk in chunks:
                if name not in files:
                    files[name] = stack.enter_context(open(Path(temporary, name), "wb"))
                    manifest[name] = {"dtype": chunk.dtype.str, "shape": [0, *chunk.shape[1:]]}
                files[name].write(np.ascontiguousarray(chunk).data)
                manifest[name]["shape"][0] += len(chunk)
        for name in manifest:
            manifest[name]["digest"] = _digest(Path(temporary, name))
            os.replace(Path(temporary, name), folder() / f"{key}.{name}")
        Path(temporary, "manifest").write_text(json.dumps(manifest), encoding="utf-8")
        os.replace(Path(temporary, "manifest"), folder() / f"{key}.json")
    return {name: _map(folder() / f"{key}.{name}", **manifest[name]) for name in manifest}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(CHECKED_BYTES)).hexdigest()


def _join(chunks: Chunks) -> dict[str, np.ndarray]:
    arrays: dict[str, list[np.ndarray]] = {}
    for name, chunk in chunks:
        arrays.setdefault(name, []).append(chunk)
    return {name: np.concatenate(parts) for name, parts in arrays.items()}

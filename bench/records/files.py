"""Small files: written completely or not at all, and read safely whatever they contain."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.settings.errors import UserError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError the path of the written file, which the system does not state."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def folder(results_dir: str, *names: str) -> Path:
    """A folder below results_dir, made if missing. Raises UserError if it cannot be made."""
    found = Path(results_dir, *names)
    try:
        found.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"results_dir={results_dir}: is a file or lies below one; a folder is needed"
        ) from None
    except OSError as error:
        raise UserError(f"results_dir={results_dir}: {error.strerror}") from None
    return found


def write_text(path: Path, text: str) -> None:
    """Write the whole file or nothing. Raises OSError with the path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises OSError, or ValueError if it is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deeply") from None

"""A user's own text: the files that `data.path` selects, and the texts in them."""

import codecs
import functools
import glob
import gzip
import hashlib
import importlib
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.data.tokenizer import END_OF_TEXT
from bench.settings.errors import UserError

CYCLE = 20  # of every twenty texts, number 9 is validation and number 19 is test
ACCEPTED = "it takes a text file, a folder or a glob"
# The `datasets` loader for each kind of table; tables may be compressed, as .gz.
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
}


def text_files(block: dict[str, Any]) -> list[Path]:
    """The files that `data.path` selects, in order. Raises UserError if there are none, if they are
    tables and `data.column` is not set, or if it is set without tables."""
    path, column = block.get("path"), block.get("column")
    if path in (None, "", "???"):
        raise UserError(f"data.path is not set: {ACCEPTED}")
    if not isinstance(path, str):
        raise UserError(f"data.path={path}: {ACCEPTED}, one")
    root = Path(path).expanduser()
    if root.is_dir():
        found = sorted(file for file in root.rglob("*") if file.is_file())
        files = [f for f in found if (ending(f) in TABLES if column else ending(f) == ".txt")]
        problem = f"no {'table' if column else '.txt file'} in this folder"
        if not column and any(ending(file) in TABLES for file in found):
            problem += ", but tables: data.column=… names the column with their text"
    else:
        names = [str(root)] if root.is_file() else glob.glob(str(root), recursive=True)
        files = sorted(Path(name) for name in names if Path(name).is_file())
        problem = "no such file"
    if not files:
        raise UserError(f"data.path={path}: {problem}; {ACCEPTED}")
    for file in files:
        if column and ending(file) not in TABLES:
            kinds = ", ".join(TABLES)
            raise UserError(f"data.column={column}: {file} is no table; those end in {kinds}")
        if not column and ending(file) in TABLES:
            raise UserError(
                f"data.path={path}: {file} is a table; data.column=… names the column with its text"
            )
    return files


def ending(file: Path) -> str:
    """The ending of a file's name in lower case, without that of a compression."""
    return Path(file.name.lower().removesuffix(".gz")).suffix


def content_sha256(files: list[Path]) -> str:
    """sha256 of the files' contents in order, each preceded by its length."""
    try:
        return _content_sha256(
            tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        )
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


@functools.lru_cache(maxsize=16)  # a sweep asks for every cell
def _content_sha256(files: tuple[tuple[Path, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, size, _ in files:
        total.update(size.to_bytes(8, "little"))
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def split(block: dict[str, Any], parts: tuple[str, ...]) -> dict[str, list[str]]:
    """The texts of train, validation and test. From 20 texts on these are whole files or rows of
    tables; fewer texts are joined, and the ends of the result are validation and test."""
    path, column = block["path"], block.get("column")
    found = (
        text
        for file in text_files(block)
        for text in (rows(path, file, column) if column else [read_text(path, file)])
    )
    texts = [text + END_OF_TEXT for text in found]
    if all(text == END_OF_TEXT for text in texts):
        raise UserError(f"data.path={path}: there is no text in it")
    train, validation, test = parts
    if len(texts) >= CYCLE:
        held_out = {CYCLE // 2 - 1: validation, CYCLE - 1: test}
        names = [held_out.get(index % CYCLE, train) for index in range(len(texts))]
        return {p: [t for t, name in zip(texts, names, strict=True) if name == p] for p in parts}
    text = "".join(texts)
    first, second = len(text) * 90 // 100, len(text) * 95 // 100
    return {train: [text[:first]], validation: [text[first:second]], test: [text[second:]]}


def rows(path: str, file: Path, column: str) -> Iterator[str]:
    """The texts in a table's column, without surrounding blanks; empty ones are skipped."""
    datasets = package(f"data.path={path}: to read {file}")
    kind, options = TABLES[ending(file)]
    try:
        # The cache holds only locks; the user's own cache folder may not be writable.
        with tempfile.TemporaryDirectory() as cache:
            table = datasets.load_dataset(
                kind,
                data_files=str(file.resolve()),
                split="train",
                streaming=True,
                cache_dir=cache,
                **options,
            )
            for row in table:
                if column not in row:
                    columns = ", ".join(row)
                    raise UserError(f"data.column={column}: {file} has the columns {columns}")
                if row[column] is not None and (text := str(row[column]).strip()):
                    yield text
    except UserError:
        raise
    except Exception as error:  # pyarrow, pandas and fsspec raise their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"data.path={path}: cannot read {file} ({reason})") from error


def package(asked: str):
    """The package datasets; UserError if it is not installed. asked: what needs it."""
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise UserError(f"{asked} the package datasets is needed: pip install datasets") from None


def read_text(path: str, file: Path) -> str:
    """A file's text without surrounding blanks: UTF-8, or UTF-16 with a byte order mark."""
    try:
        content = file.read_bytes()
        if file.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if marked else "utf-8-sig").strip()
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at offset {error.start}"
        raise UserError(f"data.path={path}: {file} is not UTF-8 ({where})") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"data.path={path}: cannot read {file} ({reason})") from error
    if "\0" in text:
        raise UserError(f"data.path={path}: {file} has zero bytes in it: no text, or not UTF-8")
    return text

"""Where data comes from: the shipped Parquet files, the Hugging Face hub, or a user's own text.

`documents` and `images` give every source the same form: for each part (train, validation, test),
its name, an iterator over its content, and how much of it to take. Parts of one hub split share one
stream, so they have to be consumed in the order given.
"""

import functools
import glob
import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from bench.data.tokenizer import END_OF_TEXT
from bench.settings.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
PARTS = ("train", "validation", "test")
SHIPPED = {"text": "data=sotu", "images": "data=fashion_mnist"}
CYCLE = 20  # of every twenty files, number 9 is validation and number 19 is test
LINES = 100  # rows that are lines are joined by so many
CONNECT_SECONDS = 5.0


def fingerprint(block: dict) -> dict:
    """What of `block` decides the content of the prepared arrays, as plain data.

    Raises UserError where a source's files are missing.
    """
    facts = {k: block[k] for k in block if k not in ("name", "patch_size", "eval_sequences")}
    if block["source"] == "shipped":
        files = [parquet_file(block, part) for part in PARTS]
        return facts | {"content": content_sha256(files)}
    if block["source"] == "text_files":
        return facts | {"path": content_sha256(text_files(block.get("path")))}
    return facts


def documents(block: dict) -> Iterator[tuple[str, Iterator[str], int | None]]:
    """(part, texts, tokens to take or None for all); a document ends with <|endoftext|>."""
    if block["source"] == "text_files":
        for part, own in split_files(block["path"]).items():
            yield part, iter(own), None
        return
    for part, stream, limits in parts(block):
        texts = (value(row, block, "column") for row in stream)
        if block.get("rows", "documents") == "lines":
            yield part, ("".join(lines) for lines in batched(texts, LINES)), limits.get("tokens")
        else:
            yield part, (text + END_OF_TEXT for text in texts), limits.get("tokens")


def images(block: dict) -> Iterator[tuple[str, Iterator[tuple[np.ndarray, int]], int | None]]:
    """(part, (uint8 (height, width, channels), label) pairs, images to take or None for all)."""
    size, channels, classes = block["image_size"], block["channels"], block["classes"]
    if channels not in (1, 3):
        raise UserError(f"data.channels={channels}: it takes 1 (grey) or 3 (colour)")

    def pair(row: dict) -> tuple[np.ndarray, int]:
        label = value(row, block, "label_column")
        if not 0 <= label < classes:
            raise UserError(f"data.classes={classes}: {block['name']} has a label {label}")
        return pixels(value(row, block, "image_column"), size, channels), label

    for part, stream, limits in parts(block):
        yield part, map(pair, stream), limits.get("images")


def pixels(picture, size: int, channels: int) -> np.ndarray:
    """A PIL image as uint8 (size, size, channels): its central square, resized if need be."""
    from PIL import Image, ImageOps

    picture = picture.convert("RGB" if channels == 3 else "L")
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture).reshape(size, size, channels)


def value(row: dict, block: dict, setting: str):
    """A row's entry in the column that `data.<setting>` names."""
    if block[setting] not in row:
        raise UserError(
            f"data.{setting}={block[setting]}: {block['name']} has the columns {', '.join(row)}"
        )
    return row[block[setting]]


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items, the last one shorter; takes no item before it is needed."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def parts(block: dict) -> Iterator[tuple[str, Iterator[dict], dict]]:
    """(part, rows, limits) through `datasets`, streamed: nothing is copied to its own cache."""
    if block["source"] == "shipped":
        for part in PARTS:
            yield part, shipped_rows(block, part), {}
        return
    if block["source"] != "hub":
        raise UserError(f"data.source={block['source']}: it takes shipped, hub or text_files")
    streams = {
        limits["split"]: hub_rows(block, limits["split"]) for limits in block["parts"].values()
    }
    for part, limits in block["parts"].items():
        yield part, streams[limits["split"]], limits


# --- shipped


def parquet_file(block: dict, part: str) -> Path:
    path = ASSETS / block["folder"] / f"{part}.parquet"
    if not path.is_file():
        raise UserError(f"data.folder={block['folder']}: {path} is missing")
    return path


def shipped_rows(block: dict, part: str) -> Iterator[dict]:
    from datasets import load_dataset

    files = {part: str(parquet_file(block, part))}
    yield from load_dataset("parquet", data_files=files, split=part, streaming=True)


# --- hub


def hub_rows(block: dict, split: str) -> Iterator[dict]:
    """Rows of a hub data set. Raises UserError, soon, when the hub cannot deliver."""
    try:
        import datasets
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        # Without a network, datasets would try again for minutes.
        get_session().head(constants.ENDPOINT, timeout=CONNECT_SECONDS)
        datasets.config.STREAMING_OPEN_MAX_RETRIES = 6
        datasets.config.STREAMING_READ_MAX_RETRIES = 6
        yield from datasets.load_dataset(
            block["hub"],
            block["config"],
            revision=block["revision"],
            data_files=block["files"],
            split=split,
            streaming=True,
        )
    except Exception as error:  # httpx, fsspec, pyarrow, datasets: each has its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "gated" in reason:
            page = f"{constants.ENDPOINT}/datasets/{block['hub']}"
            reason = f"gated: accept its terms on {page}, then run `hf auth login`"
        raise UserError(
            f"data={block['name']}: the Hugging Face hub did not deliver {block['hub']} "
            f"({reason}); {SHIPPED[block['task']]} ships with the project and needs no network"
        ) from error


# --- the user's own text


def text_files(path: str | None) -> list[Path]:
    """The files that `data.path` means, in order. Raises UserError when there are none."""
    if path in (None, "", "???"):
        raise UserError("data.path is not set: it takes a text file, a folder or a glob")
    root = Path(path).expanduser()
    if root.is_dir():
        files = sorted(file for file in root.rglob("*.txt") if file.is_file())
    else:
        found = [str(root)] if root.is_file() else glob.glob(str(root), recursive=True)
        files = sorted(Path(name) for name in found if Path(name).is_file())
    if not files:
        problem = "no .txt file in this folder" if root.is_dir() else "no such file"
        raise UserError(f"data.path={path}: {problem}; it takes a text file, a folder or a glob")
    return files


def content_sha256(files: list[Path]) -> str:
    """sha256 of the files' contents in order, each preceded by its length."""
    try:
        return _content_sha256(
            tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        )
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


@functools.lru_cache(maxsize=16)  # a sweep asks again for every cell
def _content_sha256(files: tuple[tuple[Path, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, size, _ in files:
        total.update(size.to_bytes(8, "little"))
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def split_files(path: str) -> dict[str, list[str]]:
    """The texts of each part: whole files from 20 files on, else the ends of the joined text."""
    texts = [read_text(path, file) + END_OF_TEXT for file in text_files(path)]
    if all(text == END_OF_TEXT for text in texts):
        raise UserError(f"data.path={path}: there is no text in it")
    if len(texts) >= CYCLE:
        held_out = {CYCLE // 2 - 1: "validation", CYCLE - 1: "test"}
        names = [held_out.get(index % CYCLE, "train") for index in range(len(texts))]
        return {p: [t for t, name in zip(texts, names, strict=True) if name == p] for p in PARTS}
    text = "".join(texts)
    first, second = len(text) * 90 // 100, len(text) * 95 // 100
    return {"train": [text[:first]], "validation": [text[first:second]], "test": [text[second:]]}


def read_text(path: str, file: Path) -> str:
    """A file's text without surrounding blanks."""
    try:
        return file.read_bytes().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at offset {error.start}"
        raise UserError(f"data.path={path}: {file} is not UTF-8 ({where})") from error
    except OSError as error:
        raise UserError(f"data.path={path}: cannot read {file} ({error.strerror})") from error

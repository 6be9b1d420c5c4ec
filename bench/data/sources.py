"""Sources of data: the shipped Parquet files, the Hugging Face hub, or a user's own text.

`documents` and `images` give every source the same form: for each part (train, validation, test),
its name, an iterator over its content, and how much of it to take. Parts of one hub split share a
stream, so they must be consumed in the given order.
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np

from bench.data import files
from bench.data.tokenizer import END_OF_TEXT
from bench.settings.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
PARTS = ("train", "validation", "test")
SHIPPED = {"text": "data=sotu", "images": "data=fashion_mnist"}
NOT_CONTENT = ("name", "patch_size", "eval_sequences", "final_eval_sequences", "augment")
LATER = ("column", "years")  # newer than the first prepared arrays: no part of their key when null
ROWS = 64  # rows of a shipped file in memory at once
LINES = 100  # this many rows are joined if rows are lines
CONNECT_SECONDS = 5.0


def fingerprint(block: dict) -> dict:
    """The part of `block` that determines the content of the prepared arrays, as plain data.

    Raises UserError if a source's files are missing.
    """
    facts = {k: block[k] for k in block if k not in NOT_CONTENT}
    facts = {k: v for k, v in facts.items() if v is not None or k not in LATER}
    if block["source"] == "shipped":
        shipped = [parquet_file(block, part) for part in PARTS]
        return facts | {"content": files.content_sha256(shipped)}
    if block["source"] == "text_files":
        return facts | {"path": files.content_sha256(files.text_files(block))}
    return facts


def place(block: dict) -> str:
    """The setting that messages about the data name."""
    if "path" in block:
        return f"data.path={block['path']}"
    years = block.get("years")
    return f"data={block['name']}" if years is None else f"data.years={years}"


def documents(block: dict) -> Iterator[tuple[str, Iterator[str], int | None]]:
    """(part, texts, tokens to take or None for all); documents end with <|endoftext|>."""
    if block["source"] == "text_files":
        for part, own in files.split(block, PARTS).items():
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
    """A PIL image as uint8 (size, size, channels): its central square, resized if necessary."""
    from PIL import Image, ImageOps

    if isinstance(picture, dict):  # the form in Parquet files
        picture = Image.open(BytesIO(picture["bytes"]))
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
    """Lists of `size` items, the last one shorter; takes items only when they are needed."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def parts(block: dict) -> Iterator[tuple[str, Iterator[dict], dict]]:
    """(part, rows, limits), streamed: no cache but ours gets a copy."""
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
    from pyarrow.parquet import ParquetFile

    first, last = years(block)
    for batch in ParquetFile(parquet_file(block, part)).iter_batches(ROWS):
        for row in batch.to_pylist():
            if block.get("years") is None or first <= int(row["name"][:4]) <= last:
                yield row


def years(block: dict) -> tuple[int, int]:
    """The first and last year of the texts to take. Raises UserError for anything else."""
    match block.get("years"):
        case None:
            return 0, 9999
        case [int() as first, int() as last] if first <= last:
            return first, last
    raise UserError(f"data.years={block['years']}: it takes null or [first, last], as [1790, 1860]")


# --- hub


def hub_rows(block: dict, split: str) -> Iterator[dict]:
    """Rows of a hub data set. Raises UserError, quickly, if the hub cannot deliver."""
    datasets = files.package(f"data={block['name']}: for the Hugging Face hub")
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        # Without a network, datasets would keep trying for minutes.
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
    except Exception as error:  # httpx, fsspec, pyarrow, datasets raise their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "gated" in reason:
            page = f"{constants.ENDPOINT}/datasets/{block['hub']}"
            reason = f"gated: accept its terms on {page}, then run `hf auth login`"
        raise UserError(
            f"data={block['name']}: the Hugging Face hub did not deliver {block['hub']} "
            f"({reason}); {SHIPPED[block['task']]} ships with the project and needs no network"
        ) from error

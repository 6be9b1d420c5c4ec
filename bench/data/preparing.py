"""Prepares data once, before it is cached: text becomes token ids, images become bytes."""

import math
import sys
import time
from itertools import islice

import numpy as np

from bench.data import cache, sources, tokenizer
from bench.settings.errors import UserError

DOCUMENTS, PIECES, IMAGES = 64, 64, 256  # number of items handled at once


def tokenize(block: dict, name: str | None) -> cache.Chunks:
    """(part, ids) chunks; a part ends after the document that completes its number of tokens."""
    bpe = tokenizer.load(name)
    dtype = np.uint16 if bpe.get_vocab_size() < 2**16 else np.uint32
    report = progress(f"tokenizing {block['name']} with {name}", "tokens")
    for part, documents, limit in sources.documents(block):
        tokens = 0
        for texts in sources.batched(documents, DOCUMENTS):
            pieces = (piece for text in texts for piece in tokenizer.pieces(text))
            for batch in sources.batched(pieces, PIECES):
                encodings = bpe.encode_batch_fast(batch, add_special_tokens=False)
                ids = np.concatenate([np.array(one.ids, dtype=dtype) for one in encodings])
                yield part, ids
                tokens += len(ids)
                report(part, tokens)
            if limit is not None and tokens >= limit:
                break
        if not tokens:
            raise UserError(f"{sources.place(block)}: the {part} part has 0 tokens")


def decode(block: dict) -> cache.Chunks:
    """Images and labels of each part, and the training part's statistics: float32 (2, C)."""
    report = progress(f"decoding {block['name']}", "images")
    total, squares, count = 0.0, 0.0, 0
    for part, pairs, limit in sources.images(block):
        done = 0
        for batch in sources.batched(islice(pairs, limit), IMAGES):
            images = np.stack([image for image, _ in batch])
            yield f"{part}_images", images
            yield f"{part}_labels", np.array([label for _, label in batch], dtype=np.int64)
            done += len(batch)
            report(part, done)
            if part == "train":
                pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
                total, squares = total + pixels.sum(0), squares + (pixels**2).sum(0)
                count += len(pixels)
        if not done:
            raise UserError(f"{sources.place(block)}: the {part} part has no images")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    yield "statistics", np.stack([mean, std]).astype(np.float32)


def progress(what: str, unit: str):
    """A function that prints progress on stderr, at first and every ten seconds."""
    last = -math.inf

    def report(part: str, done: int) -> None:
        nonlocal last
        if last == -math.inf:
            print(f"{what} (once, where it can be kept)", file=sys.stderr)
            last = time.monotonic()
        elif time.monotonic() - last > 10:
            print(f"{what}: {part}, {done / 1e6:.2f} M {unit}", file=sys.stderr)
            last = time.monotonic()

    return report

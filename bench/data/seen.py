"""The data that a run sees: the distinct positions of a text, or images, in all its batches."""

from dataclasses import replace

import numpy as np

from bench.data import tokenizer
from bench.data.batches import Images, Tokens

CHUNK = 256  # windows read at once from an evaluated part


def positions(data: Tokens, steps: int, examples: int) -> np.ndarray:
    """The tokens of the training part that are in a batch of any step, bool (tokens,).

    examples: per step, all its parts together.
    """
    count = len(data.parts["train"])
    places = replace(data, parts=data.parts | {"train": np.arange(count)})
    return _seen(count, (places.batch(step, examples)["input_ids"] for step in range(steps)))


def images(data: Images, steps: int, examples: int) -> np.ndarray:
    """The images of the training part that are in a batch of any step, bool (images,)."""
    count = len(data.arrays["train_labels"])
    places = replace(data, arrays=data.arrays | {"train_labels": np.arange(count)})
    return _seen(count, (places.batch(step, examples)["labels"] for step in range(steps)))


def _seen(count: int, batches) -> np.ndarray:
    seen = np.zeros(count, dtype=bool)
    for batch in batches:
        seen[batch.numpy()] = True
    return seen


def windows(data: Tokens, part: str) -> np.ndarray:
    """The windows that a part is evaluated on, ids (W, T)."""
    return np.concatenate([b["input_ids"].numpy() for b in data.evaluation(part, CHUNK)])


def bytes_per_token(data: Tokens, name: str | None) -> dict[str, float]:
    """For validation and test: the average bytes of text per predicted token.

    name: that of the tokenizer.
    """
    lengths = np.array(tokenizer.byte_lengths(name))
    parts = ("validation", "test")
    return {part: float(lengths[windows(data, part)[:, 1:]].mean()) for part in parts}


def evaluated(data: Images, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The evaluated images of a part: pixels as models see them, float32 (N, D), and labels."""
    every = list(data.evaluation(part, CHUNK))
    pixels = np.concatenate([b["pixel_values"].flatten(1).numpy() for b in every])
    return pixels, np.concatenate([b["labels"].numpy() for b in every])


def pictures(data: Images, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of the training part in the same form, without augmentation."""
    mean, std = data.arrays["statistics"]
    pixels = (data.arrays["train_images"][chosen] - mean) / std
    pixels = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return pixels, data.arrays["train_labels"][chosen]

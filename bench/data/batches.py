"""Batches of text or images, the same at every time and on every machine.

Data is prepared once (tokenized, decoded), cached, and memory-mapped: with a warm cache neither
`datasets` nor `tokenizers` is imported. Training batches are pure functions of seed and step.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.data import augment, cache, files, sources, tokenizer
from bench.data.preparing import decode, tokenize
from bench.data.sources import SHIPPED
from bench.settings.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor  # elsewhere imported where needed

Batch = dict[str, "Tensor"]

FORMAT = 1  # version of the prepared arrays; part of every cache key
SIZES = ("image_size", "classes", "patch_size")
# What a data block of each task must contain, for any source.
NEEDED = {
    "text": ("source", "column", "eval_sequences"),
    "images": (
        *("source", "image_column", "label_column", "eval_sequences"),
        *("image_size", "channels", "classes", "patch_size"),
    ),
}


def identity(block: dict) -> dict:
    """The part of the data block that identifies a cell; a user's files count by their content.

    Raises UserError if those files are missing or cannot be read.
    """
    if block["source"] != "text_files":
        return dict(block)
    return block | {"path": {"sha256": files.content_sha256(files.text_files(block))}}


def load(
    block: dict, *, seed: int, sequence_length: int, tokenizer: str | None
) -> "Tokens | Images":
    """The data of a resolved `data` block (conf/data/*.yaml), as Tokens or Images.

    `sequence_length` (in tokens) and `tokenizer` (a name in bench/assets/tokenizers) apply to text
    only. Raises UserError, before any training, for anything wrong with the data.
    """
    block = block | {"final_eval_sequences": final_eval_sequences(block)}
    for setting in (*("eval_sequences", "final_eval_sequences"), *SIZES):
        number = block.get(setting, 1)
        if not isinstance(number, int) or number < 1:
            raise UserError(f"data.{setting}={number}: it takes a whole number from 1 on")
    if block["task"] not in NEEDED:
        raise UserError(f"data.task={block['task']}: it takes text or images")
    lacking = [setting for setting in NEEDED[block["task"]] if setting not in block]
    if lacking:
        raise UserError(
            f"data.task={block['task']}: data={block['name']} has no {', '.join(lacking)}; "
            f"{SHIPPED[block['task']]} has"
        )
    if block["task"] == "text":
        return load_tokens(block, seed, sequence_length, tokenizer)
    return load_images(block, seed)


def final_eval_sequences(block: dict) -> int:
    """Examples of the last evaluation; the default is the number in the other evaluations."""
    number = block.get("final_eval_sequences")
    return block.get("eval_sequences", 1) if number is None else number


def evenly(count: int, of: int) -> np.ndarray:
    """The positions of `count` examples spread evenly over `of`, (min(count, of),) int64: the
    middles of equal parts."""
    count = min(count, of)
    return (2 * np.arange(count) + 1) * of // (2 * count)


# --- text


@dataclass(frozen=True)
class Tokens:
    """Token ids of the three parts, read as windows of `sequence_length` tokens."""

    name: str
    seed: int
    sequence_length: int
    vocab_size: int
    eval_sequences: int
    final_eval_sequences: int
    parts: dict[str, np.ndarray]  # each (tokens,), uint16 or uint32

    task = "text"
    unit = "tokens"

    @property
    def units_per_example(self) -> int:
        return self.sequence_length

    @property
    def facts(self) -> dict[str, int]:
        """The facts that the model must fit."""
        return {"vocab_size": self.vocab_size}

    def batch(self, step: int, examples: int) -> Batch:
        """Windows for optimizer step `step` (from 0): input_ids and labels, int64 (B, T)."""
        last = len(self.parts["train"]) - self.sequence_length
        generator = np.random.default_rng([self.seed, step])
        return self._windows("train", generator.integers(0, last, size=examples, endpoint=True))

    def evaluation(self, part: str, batch_size: int, during: bool = False) -> Iterator[Batch]:
        """Windows spread evenly over a part, always the same: at a run's end, or `during` it.

        Windows do not overlap.
        """
        starts = self._evaluated(part, during) * self.sequence_length
        for first in range(0, len(starts), batch_size):
            yield self._windows(part, starts[first : first + batch_size])

    def evaluated(self, part: str, during: bool = False) -> int:
        """Number of windows that `evaluation` reads; all windows of the part, if it has fewer."""
        return len(self._evaluated(part, during))

    def _evaluated(self, part: str, during: bool) -> np.ndarray:
        asked = self.eval_sequences if during else self.final_eval_sequences
        return evenly(asked, len(self.parts[part]) // self.sequence_length)

    def _windows(self, part: str, starts: np.ndarray) -> Batch:
        import torch

        windows = self.parts[part][starts[:, None] + np.arange(self.sequence_length)]
        input_ids = torch.from_numpy(windows.astype(np.int64))
        return {"input_ids": input_ids, "labels": input_ids}  # the loss shifts the labels


def load_tokens(block: dict, seed: int, sequence_length: int, name: str | None) -> Tokens:
    facts = sources.fingerprint(block)
    key = cache.key(FORMAT, facts, tokenizer.sha256(name))
    parts = cache.load(key, sources.PARTS, lambda: tokenize(block, name))
    for part in sources.PARTS:
        tokens = len(parts[part])
        if tokens < sequence_length:
            raise UserError(
                f"{sources.place(block)}: the {part} part has {tokens} tokens, one sequence needs "
                f"{sequence_length} (train.sequence_length)"
            )
    vocab_size = tokenizer.vocabulary_size(name)
    evaluated = block["eval_sequences"], block["final_eval_sequences"]
    return Tokens(block["name"], seed, sequence_length, vocab_size, *evaluated, parts)


# --- images


@dataclass(frozen=True)
class Images:
    """Images and classes of the three parts, normalised by the training part's statistics."""

    name: str
    seed: int
    classes: int
    patch_size: int
    eval_sequences: int
    final_eval_sequences: int
    augment: str  # for training images only: a name in bench/data/augment.py
    arrays: dict[str, np.ndarray]  # <part>_images uint8 (N, H, W, C), <part>_labels int64 (N,)

    task = "images"
    unit = "images"
    units_per_example = 1

    @property
    def facts(self) -> dict[str, int]:
        """The facts that the model must fit; sizes in pixels."""
        _, size, _, channels = self.arrays["train_images"].shape
        sizes = {"image_size": size, "patch_size": self.patch_size}
        return sizes | {"channels": channels, "classes": self.classes}

    def batch(self, step: int, examples: int) -> Batch:
        """For optimizer step `step` (from 0): pixel_values float32 (B, C, H, W), labels (B,).

        Epochs are permutations that follow each other; a batch may span several.
        """
        count = len(self.arrays["train_labels"])
        positions = np.arange(step * examples, (step + 1) * examples)
        epochs = positions // count
        chosen = [
            permutation(self.seed, int(epoch), count)[positions[epochs == epoch] % count]
            for epoch in np.unique(epochs)
        ]
        indices = np.concatenate(chosen)
        images = self.arrays["train_images"][indices]
        if self.augment == "shift_flip":
            images = augment.shift_flip(images, self.seed, step)
        return self._normalised(images, self.arrays["train_labels"][indices])

    def evaluation(self, part: str, batch_size: int, during: bool = False) -> Iterator[Batch]:
        """Images spread evenly over a part, always the same: at a run's end, or `during` it."""
        indices = self._evaluated(part, during)
        for first in range(0, len(indices), batch_size):
            chosen = indices[first : first + batch_size]
            images, labels = (self.arrays[f"{part}_{kind}"] for kind in ("images", "labels"))
            yield self._normalised(images[chosen], labels[chosen])

    def evaluated(self, part: str, during: bool = False) -> int:
        """Number of images that `evaluation` reads; all images of the part, if it has fewer."""
        return len(self._evaluated(part, during))

    def _evaluated(self, part: str, during: bool) -> np.ndarray:
        asked = self.eval_sequences if during else self.final_eval_sequences
        return evenly(asked, len(self.arrays[f"{part}_labels"]))

    def _normalised(self, images: np.ndarray, labels: np.ndarray) -> Batch:
        import torch

        mean, std = (torch.from_numpy(row.copy()) for row in self.arrays["statistics"])
        pixel_values = ((torch.from_numpy(images) - mean) / std).permute(0, 3, 1, 2).contiguous()
        return {"pixel_values": pixel_values, "labels": torch.from_numpy(labels)}


@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch, (count,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def load_images(block: dict, seed: int) -> Images:
    size, patch_size = block["image_size"], block["patch_size"]
    if size % patch_size:
        raise UserError(f"data.patch_size={patch_size}: it has to divide data.image_size={size}")
    augmented = block.get("augment", "none")
    if augmented not in augment.NAMES:
        raise UserError(f"data.augment={augmented}: must be one of {', '.join(augment.NAMES)}")
    key = cache.key(FORMAT, sources.fingerprint(block))
    names = [f"{part}_{kind}" for part in sources.PARTS for kind in ("images", "labels")]
    arrays = cache.load(key, [*names, "statistics"], lambda: decode(block))
    evaluated = block["eval_sequences"], block["final_eval_sequences"]
    return Images(block["name"], seed, block["classes"], patch_size, *evaluated, augmented, arrays)

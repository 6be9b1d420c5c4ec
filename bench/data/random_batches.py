"""Random batches with the shape that a model takes: for timing, without any data."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.data import tokenizer
from bench.settings.schema import Settings


@dataclass(frozen=True)
class RandomBatches:
    """Replaces Tokens or Images: the facts that the model must fit, and batches."""

    task: str
    sequence_length: int
    facts: dict[str, Any]

    @property
    def unit(self) -> str:
        return "tokens" if self.task == "text" else "images"

    @property
    def units_per_example(self) -> int:
        return self.sequence_length if self.task == "text" else 1

    def batch(self, examples: int, seed: int) -> dict[str, Tensor]:
        """input_ids and labels, int64 (B, T); or pixel_values fp32 (B, C, H, W), labels (B,)."""
        generator = torch.Generator().manual_seed(seed)
        if self.task == "text":
            shape: tuple[int, ...] = (examples, self.sequence_length)
            ids = torch.randint(self.facts["vocab_size"], shape, generator=generator)
            return {"input_ids": ids, "labels": ids}
        size = self.facts["image_size"]
        shape = (examples, self.facts["channels"], size, size)
        labels = torch.randint(self.facts["classes"], (examples,), generator=generator)
        return {"pixel_values": torch.randn(shape, generator=generator), "labels": labels}


def for_model(settings: Settings) -> RandomBatches:
    """Uses the tokenizer of a language model, or the data block's shapes for images."""
    if settings.model["task"] == "text":
        facts = {"vocab_size": tokenizer.vocabulary_size(settings.model["tokenizer"])}
    else:
        sizes = ("image_size", "patch_size", "channels", "classes")
        facts = {size: settings.data[size] for size in sizes}
    return RandomBatches(settings.model["task"], settings.train.sequence_length, facts)

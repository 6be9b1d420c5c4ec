"""The random state of a run: seeded once, kept in its checkpoints."""

import random
from typing import Any

import torch


def seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)


def state(device: str) -> dict[str, Any]:
    """The random state as tensors and plain data, for a checkpoint."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if device == "cuda" else None,
        "python": random.getstate(),
    }


def restore(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None:
        torch.cuda.set_rng_state(saved["cuda"])
    random.setstate(saved["python"])

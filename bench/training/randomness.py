"""The random state of a run: seeded once, kept in its checkpoints."""

import random
from typing import Any

import numpy as np
import torch


def seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # some optimizers draw from it


def state(device: str) -> dict[str, Any]:
    """The random state as tensors and plain data, for a checkpoint."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if device == "cuda" else None,
        "python": random.getstate(),
        "numpy": _plain(np.random.get_state(legacy=False)),
    }


def restore(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None:
        torch.cuda.set_rng_state(saved["cuda"])
    random.setstate(saved["python"])
    if "numpy" in saved:  # earlier checkpoints are without
        np.random.set_state(saved["numpy"])


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """NumPy's state with a list instead of an array, which a checkpoint cannot hold."""
    inner = state["state"]
    return state | {"state": inner | {"key": inner["key"].tolist()}}

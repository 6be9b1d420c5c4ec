"""Momentum matrices of a run, saved for the laboratory."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from optimizers.routing import Routing
from optimizers.state import momentum, views


def save(folder: Path, step: int, routing: Routing, model: nn.Module) -> None:
    """The momentum of every parameter, as momentum/<step>.safetensors.

    The file's metadata says how Muon reads them as matrices.
    """
    path = folder / "momentum" / f"{step}.safetensors"
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    parts = routing.optimizers, model
    save_file(momentum(*parts), unfinished, {"views": json.dumps(views(*parts))})
    unfinished.replace(path)

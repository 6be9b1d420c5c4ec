"""Momentum matrices of a run, saved for the laboratory."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from safetensors.torch import save_file
from torch import Tensor, nn

from bench.processes.world import World
from bench.training.checkpoint import plain_refusal
from optimizers.routing import Routing
from optimizers.sharding.regions import mesh_of
from optimizers.state import momentum, views

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def save(folder: Path, step: int, routing: Routing, model: nn.Module, world: World) -> None:
    """The momentum of every parameter, as momentum/<step>.safetensors.

    The file's metadata says how Muon reads it as matrices. All processes take part; one writes.
    """
    parts = routing.optimizers, model
    moments = {name: whole(moment) for name, moment in momentum(*parts).items()}
    if not world.leads:
        return
    path = folder / "momentum" / f"{step}.safetensors"
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with plain_refusal(path):
        save_file(moments, unfinished, {"views": json.dumps(views(*parts))})
    unfinished.replace(path)


def whole(tensor: Tensor) -> Tensor:
    return tensor if mesh_of(tensor) is None else cast("DTensor", tensor).full_tensor()

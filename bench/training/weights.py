"""Weights without a run around them: the last ones of a run kept, and given ones to start from."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bench.processes.world import World
from bench.records.initial import WEIGHTS
from bench.settings.errors import UserError
from bench.training import checkpoint


def save(folder: Path, model: nn.Module, world: World) -> None:
    """Write all parameters and buffers, whole and in the model's names, to weights.safetensors.

    All processes of a run take part; the first one writes. Raises OSError with the path.
    """
    whole = {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in _own(model).items()
    }
    if world.leads:
        unfinished = folder / f".{WEIGHTS}"
        checkpoint.write_tensors(unfinished, whole)
        os.replace(unfinished, folder / WEIGHTS)


@torch.no_grad()
def load(model: nn.Module, file: Path) -> None:
    """Replace all of a model's parameters and buffers by those of a safetensors file.

    Raises UserError if the file cannot be read, or has other names or shapes than the model.
    """
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"init_from={file}: is no .safetensors file ({said})") from None
    own = _own(model)
    aliases = dict(model.named_parameters(remove_duplicate=False))  # of tied parameters
    for words, names in (
        ("is without {}, which the model has", own.keys() - found.keys()),
        ("has {}, which the model has not", found.keys() - own.keys() - aliases.keys()),
    ):
        if names:
            first, *others = sorted(names)
            named = first + (f" and {len(others)} more" if others else "")
            raise UserError(f"init_from={file}: {words.format(named)}")
    for name, tensor in own.items():
        if found[name].shape != tensor.shape:
            raise UserError(
                f"init_from={file}: {name} is {tuple(found[name].shape)}, the model's is "
                f"{tuple(tensor.shape)}"
            )
        tensor.copy_(found[name])


def _own(model: nn.Module) -> dict[str, Tensor]:
    """Each parameter and kept buffer once, by its first name."""
    kept = model.state_dict().keys()
    every = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in every if name in kept}

"""Tensors of many processes in one folder, with torch's distributed checkpoint, without pickle.

Each process writes a safetensors file of its own, whose header says which parts of which tensors it
holds. Any number of processes can read them; each reads the parts that it needs.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.placement_types import Placement, _StridedShard


def write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors, whole (the same on all processes) or sharded; all processes take part.

    Raises OSError if the disk of any process refuses.
    """
    simple = {name: _simply_cut(tensor) for name, tensor in tensors.items()}
    try:
        dcp.save(
            simple, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True)
        )
    except dcp.api.CheckpointException as error:
        for cause, _ in error.failures.values():
            if isinstance(cause, OSError):
                raise cause from None
        raise


def read(folder: Path, like: Mapping[str, Tensor], processes: int) -> dict[str, Tensor]:
    """All tensors of a folder, on the CPU. If `like` has a tensor of the same shape under their
    name, or under its part before the last slash, they are sharded like that tensor.

    processes: how many processes read; each calls this.
    """
    reader = HuggingFaceStorageReader(str(folder))
    tensors: dict[str, Tensor] = {}
    targets: dict[str, DTensor] = {}
    for name, stored in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(stored, TensorStorageMetadata)  # `write` stores nothing else
        tensors[name] = torch.empty(stored.size, dtype=stored.properties.dtype)
        target = like.get(name, like.get(name.rpartition("/")[0]))
        if isinstance(target, DTensor) and target.shape == stored.size:
            targets[name] = target
            mesh, placements = target.device_mesh, _simple(target)
            tensors[name] = distribute_tensor(
                tensors[name].to(mesh.device_type), mesh, placements, src_data_rank=None
            )
    with warnings.catch_warnings():  # the warning that there is only one process
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(tensors, storage_reader=reader, no_dist=processes == 1)
    for name, target in targets.items():
        read_as = tensors[name]
        assert isinstance(read_as, DTensor)
        tensors[name] = read_as.redistribute(placements=target.placements)
    return tensors


def _simply_cut(tensor: Tensor) -> Tensor:
    """The tensor in contiguous parts, the only ones that the checkpoint's format supports."""
    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.redistribute(placements=_simple(tensor))


def _simple(tensor: DTensor) -> list[Placement]:
    return [Replicate() if isinstance(p, _StridedShard) else p for p in tensor.placements]

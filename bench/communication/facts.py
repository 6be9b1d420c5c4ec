"""The facts on a model and its optimizers that the plain model of model.py needs."""

from math import prod
from typing import Any, cast

import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Shard, _StridedShard
from torch.nn import ModuleList

from bench.communication import model as communication
from bench.communication.model import Forecast, Travelling
from models.tensor_parallel import fan_out
from optimizers.orthogonalize import Orthogonalizer
from optimizers.sharding import plan
from optimizers.sharding.batches import cost
from optimizers.sharding.regions import extent
from optimizers.views import View


def step(optimizers: list[Any]) -> dict[str, dict[str, Any]]:
    """What this process moves in a step of these optimizers, by the model."""
    total: dict[str, dict[str, Any]] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if group.get("sharding") is None or group["sharding"] in ("replicate", "blockwise"):
                continue  # not our Muon, or it moves nothing
            count = plan.count_processes(group["params"])
            if count == 1:
                continue
            processes = plan.process_group(group["params"])
            views = travelling(group, optimizer.views(group), processes)
            owners = communication.share_out(views, count)
            device = group["params"][0].device.type
            itemsize = Orthogonalizer(**group["orthogonalizer"]).input_dtype(device).itemsize
            found = communication.muon_step(views, count, group["sharding"], itemsize, owners)
            own = communication.of_process(found, dist.get_rank(processes))
            total = merged(total, own)
    return total


def merged(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]):
    empty = {"calls": 0, "sent_bytes": 0, "received_bytes": 0}
    return {
        kind: {key: one.get(kind, empty)[key] + other.get(kind, empty)[key] for key in empty}
        for kind in one | other
    }


def travelling(
    group: dict[str, Any], views: list[View], processes: dist.ProcessGroup
) -> list[Travelling]:
    """A group's views without those whose blocks each lie whole on some process."""
    params = group["params"]
    shapes = [tuple(p.shape) for p in params]
    held_by = plan.regions(params, processes)
    return [
        Travelling(
            tuple(shapes[k] for k in view["members"]),
            tuple(sum(prod(extent(held[k])) for k in view["members"]) for held in held_by),
            sum(prod(shapes[k]) for k in view["members"]),
            cost(view, group),
        )
        for view in views
        if not plan.stays(view, params, group["sharding"], held_by)
    ]


def forward_backward(
    model: nn.Module, strategy: str, mesh: dict[str, int], rows: float, itemsize: int
) -> dict[str, dict[str, Any]]:
    """What a process moves in one forward and backward pass, by the model.

    rows: of the inputs of this process's linear maps; itemsize: bytes per number of a map's output.
    """
    data, tensor = mesh.get("data", 1), mesh.get("tensor", 1)
    total: dict[str, dict[str, Any]] = {}
    if strategy == "ddp" and data > 1:
        sizes = [p.numel() * p.element_size() for p in model.parameters() if p.requires_grad]
        total = merged(total, communication.of_process(communication.data_parallel(sizes, data), 0))
    if strategy in ("fsdp2", "fsdp2_tp") and data > 1:
        found: Forecast = communication.fully_sharded(*units(model, data), data)
        total = merged(total, communication.of_process(found, 0))
    if strategy in ("tp", "fsdp2_tp") and tensor > 1:
        columns, out = cut_maps(model)
        found = communication.tensor_parallel(columns, out, round(rows), tensor, itemsize)
        total = merged(total, communication.of_process(found, 0))
    return total


def units(model: nn.Module, data: int) -> tuple[list[int], int]:
    """Bytes of a process's part of each layer's weights, and of all other weights (fully_shard)."""
    layers = {
        f"{name}.{number}.": 0
        for name, module in model.named_modules()
        if isinstance(module, ModuleList)
        for number in range(len(module))
    }
    root = 0
    for name, p in model.named_parameters():
        size = _part(cast(DTensor, p), data) * p.element_size()
        inside = [prefix for prefix in layers if name.startswith(prefix)]
        if inside:
            layers[min(inside, key=len)] += size
        else:
            root += size
    return list(layers.values()), root


def _part(p: DTensor, data: int) -> int:
    """Numbers in one process's part over the mesh's first dimension, including padding."""
    shape = list(p.shape)
    for placement, size in zip(p.placements[1:], p.device_mesh.shape[1:], strict=True):
        if isinstance(placement, Shard | _StridedShard):
            shape[placement.dim] //= size
    first = p.placements[0]
    assert isinstance(first, Shard | _StridedShard)  # fully_shard shards every parameter
    shape[first.dim] = -(-shape[first.dim] // data)
    return prod(shape)


def cut_maps(model: nn.Module) -> tuple[list[tuple[int, int, bool]], list[int]]:
    """The maps that are sharded along their fan-out, and the fan-outs of those along fan-in."""
    columns, rows = [], []
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, DTensor):
            continue
        if "tensor" not in (weight.device_mesh.mesh_dim_names or ()):
            continue
        out = fan_out(module)
        last = weight.placements[-1]
        assert isinstance(last, Shard | _StridedShard)  # of a sharded map
        if last.dim == out:
            bias = module.bias is not None
            columns.append((weight.shape[1 - out], weight.shape[out], bias))
        else:
            rows.append(weight.shape[out])
    return columns, rows

"""How the processes of a run share its work, as `parallel=…` says; world.py identifies them.

With one process no function here does anything.
"""

import functools
import os
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from bench.processes.world import ALONE, World, rank, size
from bench.settings.errors import UserError
from bench.settings.schema import Settings

# The sharding that each may use for Muon's matrices (optimizers/sharding/plan.py).
STRATEGIES = {
    "ddp": ("replicate", "distribute"),
    "fsdp2": ("distribute", "gather", "blockwise"),
    "tp": ("distribute", "gather", "blockwise"),
    "fsdp2_tp": ("distribute", "gather", "blockwise"),
}
LONGEST = 2**24  # seconds: a longer time limit overflows


# setting up -----------------------------------------------------------------------------------


def start(settings: Settings) -> World:
    """The connected processes of this run. Raises UserError for an impossible mesh."""
    strategy = settings.parallel["name"]
    processes = size()
    if strategy == "none":
        if processes > 1:
            raise UserError(
                f"parallel=none: torchrun started {processes} processes; choose "
                f"parallel={', '.join(STRATEGIES)}"
            )
        return ALONE
    check(settings, processes)
    refuse_older_torch(strategy)
    shape = mesh_shape(settings.parallel, processes)
    if strategy == "ddp" and processes == 1:
        return World(strategy, shape=shape)
    device, limit = settings.train.device, timedelta(seconds=settings.parallel["timeout"])
    connect(device, limit)
    mesh = None if strategy == "ddp" else device_mesh(device, shape, limit)
    align = settings.parallel.get("align_heads", False)
    return World(strategy, rank(), processes, shape, mesh, align)


def check(settings: Settings, processes: int) -> None:
    """Raises UserError, naming the setting, for something that these processes cannot do."""
    block = settings.parallel
    strategy = block["name"]
    if block["muon"] not in STRATEGIES[strategy]:
        accepted = ", ".join(STRATEGIES[strategy])
        raise UserError(f"parallel.muon={block['muon']}: {strategy} takes one of {accepted}")
    timeout = block["timeout"]
    if not isinstance(timeout, int | float) or not 0 < timeout < LONGEST:
        raise UserError(f"parallel.timeout={timeout}: must be a number of seconds above 0")
    tensor = block.get("tensor", 1)
    if not isinstance(tensor, int) or tensor < 1 or processes % tensor:
        raise UserError(
            f"parallel.tensor={tensor}: must divide the {processes} processes that torchrun started"
        )
    shared = dict(mesh_shape(block, processes)).get("data", 1)
    if settings.train.batch_size % shared:
        raise UserError(
            f"train.batch_size={settings.train.batch_size}: does not divide over {shared} processes"
        )
    if settings.model.get("sparse_embedding"):
        raise UserError(
            f"parallel={strategy}: model={settings.model['name']} has sparse gradients, which are "
            "not shared over processes; use parallel=none"
        )


def refuse_older_torch(strategy: str) -> None:
    """Raises UserError if torch cannot assemble the content of a checkpoint."""
    import torch

    if strategy in ("tp", "fsdp2_tp") and torch.__version__ < "2.13":
        raise UserError(
            f"parallel={strategy}: needs torch 2.13 or newer, this is {torch.__version__}: older "
            "ones cannot gather Q, K and V that are one weight, for a checkpoint"
        )


def mesh_shape(block: dict[str, Any], processes: int) -> tuple[tuple[str, int], ...]:
    if block["name"] == "tp":
        return (("tensor", processes),)
    if block["name"] == "fsdp2_tp":
        return ("data", processes // block["tensor"]), ("tensor", block["tensor"])
    return (("data", processes),)


@functools.cache
def connect(device: str, limit: timedelta) -> None:
    """Join the other processes, once per command: NCCL on GPUs, Gloo on CPUs."""
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    if size() == 1:  # fully_shard needs a group even for one process
        store: dist.Store = dist.HashStore()
    else:
        shared, _, _ = next(dist.rendezvous("env://", timeout=limit))
        # After a restart torchrun's store still has the addresses of the earlier processes.
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"restart {restart}", shared)
    dist.init_process_group(backend, store=store, rank=rank(), world_size=size(), timeout=limit)


@functools.cache
def device_mesh(device: str, shape: tuple[tuple[str, int], ...], limit: timedelta):
    """torch's DeviceMesh with this shape, whose groups all have the run's time limit.

    (init_device_mesh would give groups of a second dimension torch's own limit of half an hour.)
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh

    names, sizes = zip(*shape, strict=True)
    numbers = torch.arange(size()).view(sizes)
    if len(sizes) == 1:
        everyone = dist.group.WORLD
        assert everyone is not None  # connect() was called before
        return DeviceMesh.from_group(everyone, device, mesh_dim_names=names)
    groups = []
    for dim in range(len(sizes)):
        rows = numbers.movedim(dim, -1).reshape(-1, sizes[dim]).tolist()
        group, _ = dist.new_subgroups_by_enumeration(rows, timeout=limit)
        groups.append(group)
    return DeviceMesh.from_group(groups, device, mesh=numbers, mesh_dim_names=names)


# sharing the model -----------------------------------------------------------------------------


def shard(model, parameters: list, world: World) -> None:
    """Shard the model's parameters over the mesh, in place (fsdp2, tp, fsdp2_tp).

    parameters: the facts on each (optimizers.structure.parameters.Parameter).
    """
    if world.strategy in ("tp", "fsdp2_tp"):
        from models import tensor_parallel

        tensor_parallel.shard(model, world.mesh["tensor"])
    if world.strategy in ("fsdp2", "fsdp2_tp"):
        heads = parameters if world.align_heads else []
        beside = {p.name for p in heads if heads_beside(p, world.data_size)}
        fully_shard(model, world.mesh["data"], beside)


def heads_beside(parameter, processes: int) -> bool:
    """Whether a weight's heads lie side by side along its second dimension, as in GPT-2's Conv1D,
    and this many processes can each have whole heads. Other weights are sharded along the first."""
    sizes = {part.stop - part.start for part in parameter.slices}
    fits = len(sizes) == 1 and len(parameter.slices) % processes == 0
    return fits and parameter.layout == "transposed" and parameter.tensor.ndim == 2


def fully_shard(model, mesh, beside: set[str]) -> None:
    """torch's fully_shard with each layer as a unit, whose weights are whole while it runs.

    beside: names of the parameters to shard along the second dimension instead of the first.
    """
    from torch.distributed.fsdp import fully_shard as shard
    from torch.distributed.tensor import Shard
    from torch.nn import ModuleList

    second = {id(p) for name, p in model.named_parameters() if name in beside}

    def placement(p):
        return Shard(1) if id(p) in second else None

    layers = [layer for m in model.modules() if isinstance(m, ModuleList) for layer in m]
    nested = {id(part) for layer in layers for part in layer.modules() if part is not layer}
    for layer in layers:
        if id(layer) not in nested:
            shard(layer, mesh=mesh, shard_placement_fn=placement)
    shard(model, mesh=mesh, shard_placement_fn=placement)


def forward(model, world: World):
    """The callable for forward: the model or, under ddp, its wrapper that averages gradients."""
    if world.strategy != "ddp" or world.size == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    shared = DistributedDataParallel(model)  # sends buffers once, here
    shared.broadcast_buffers = False  # the argument for this has another name from torch 2.13 on
    return shared


def exchanging(forward, last: bool):
    """A context for one of several forward and backward passes of a step; gradients are exchanged
    only after the last."""
    if hasattr(forward, "set_requires_gradient_sync"):
        forward.set_requires_gradient_sync(last)
    return nullcontext() if last or not hasattr(forward, "no_sync") else forward.no_sync()


def rest(model) -> None:
    """Free what fully_shard gathered for a forward pass without a backward pass."""
    if hasattr(model, "reshard"):
        model.reshard()

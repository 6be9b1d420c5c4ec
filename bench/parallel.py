"""Many processes for one run: who they are, how they share the model, what they agree on.

torchrun starts them (RANK, WORLD_SIZE, LOCAL_RANK); `parallel=…` says how they share the work.
One process is the case in which every function here has nothing to do.
"""

import functools
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from bench.config import Settings
from bench.errors import UserError

T = TypeVar("T")

# What each may do with Muon's matrices (optimizers/sharding.py).
STRATEGIES = {
    "ddp": ("replicate", "distribute"),
    "fsdp2": ("distribute", "gather", "blockwise"),
    "tp": ("distribute", "gather", "blockwise"),
    "fsdp2_tp": ("distribute", "gather", "blockwise"),
}
MOST_MEANS = 2**24  # seconds: beyond it a time limit overflows


def rank() -> int:
    """This process's number among those that torchrun started."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def tell(line: str) -> None:
    """A line for the person at the terminal, from the leading process alone."""
    if rank() == 0:
        print(line, file=sys.stderr, flush=True)


def leave(status: int) -> int:
    """The exit status, once the leading process has had time to say why it is not 0.

    torchrun ends all processes as soon as one has failed.
    """
    if status and rank():
        time.sleep(2)
    return status


@dataclass(frozen=True)
class World:
    """The processes of a run.

    shape: their arrangement: data (parts of the batch, and for fsdp2 shards) and tensor (parts of
    the model); mesh: the same as torch's DeviceMesh, where parameters are cut.
    align_heads: fsdp2 cuts Q, K and V weights between heads.
    """

    strategy: str = "none"
    rank: int = 0
    size: int = 1
    shape: tuple[tuple[str, int], ...] = ()
    mesh: Any = None
    align_heads: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @property
    def data_size(self) -> int:
        """Among how many processes a batch is divided."""
        return dict(self.shape).get("data", 1)

    @property
    def data_rank(self) -> int:
        return self.rank // dict(self.shape).get("tensor", 1)

    # what they agree on -----------------------------------------------------------------------

    def agreed(self, work: Callable[[], T]) -> T:
        """What the leading process finds, on all; its UserError or OSError too."""
        if self.size == 1:
            return work()
        import torch.distributed as dist

        found: list[Any] = [None, None]
        if self.leads:
            try:
                found[0] = work()
            except (UserError, OSError, KeyboardInterrupt) as error:
                found[1] = error
        dist.broadcast_object_list(found, src=0, device=self._device())
        if found[1] is not None:
            raise found[1]
        return found[0]

    def gathered(self, value: T) -> list[T]:
        """The value that each process has, in the order of ranks."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def means(self, *values: float) -> list[float]:
        """Means over the processes, the same to the last digit on each."""
        if self.size == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        both = torch.tensor(values, dtype=torch.float64, device=self._device())
        dist.all_reduce(both)
        return (both / self.size).tolist()

    def holders(self, tensor) -> int:
        """How many processes have each number of a tensor."""
        parts = 1
        if hasattr(tensor, "placements"):
            for size, placement in zip(tensor.device_mesh.shape, tensor.placements, strict=True):
                parts *= 1 if placement.is_replicate() else size
        return self.size // parts

    def _device(self) -> str:
        import torch.distributed as dist

        return "cuda" if dist.get_backend() == "nccl" else "cpu"

    # how they share the model ------------------------------------------------------------------

    def shard(self, model, parameters: list) -> None:
        """Cut the model's parameters over the mesh, in place (fsdp2, tp, fsdp2_tp).

        parameters: what is known of each (optimizers.structure.Parameter).
        """
        if self.strategy in ("tp", "fsdp2_tp"):
            from models import tensor_parallel

            tensor_parallel.shard(model, self.mesh["tensor"])
        if self.strategy in ("fsdp2", "fsdp2_tp"):
            heads = parameters if self.align_heads else []
            beside = {p.name for p in heads if heads_beside(p, self.data_size)}
            fully_shard(model, self.mesh["data"], beside)

    def forward(self, model):
        """What is called forward: the model, or under ddp what averages its gradients."""
        if self.strategy != "ddp" or self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model, forward_sync_buffers=False)

    def averages(self, forward, last: bool):
        """A context for one of several forward and backward passes of a step: only after the last
        are gradients exchanged."""
        if hasattr(forward, "set_requires_gradient_sync"):
            forward.set_requires_gradient_sync(last)
        return nullcontext() if last or not hasattr(forward, "no_sync") else forward.no_sync()

    def part(self, batch: dict[str, Any]) -> dict[str, Any]:
        """This process's examples of a batch; all of them where they do not divide.

        A loss over the batch is in either case the mean of the processes' losses.
        """
        count = len(batch["labels"])
        if self.data_size == 1 or count % self.data_size:
            return batch
        each = count // self.data_size
        mine = slice(self.data_rank * each, (self.data_rank + 1) * each)
        return {key: value[mine] for key, value in batch.items()}


ALONE = World()


def heads_beside(parameter, processes: int) -> bool:
    """Whether a weight's heads lie beside each other along its second dimension, as in GPT-2's
    Conv1D, and so many processes can have whole ones. Along the first it is cut in any case."""
    sizes = {part.stop - part.start for part in parameter.slices}
    fits = len(sizes) == 1 and len(parameter.slices) % processes == 0
    return fits and parameter.layout == "transposed" and parameter.tensor.ndim == 2


def fully_shard(model, mesh, beside: set[str]) -> None:
    """torch's fully_shard, each layer a unit of its own: its weights are whole while it runs.

    beside: names of the parameters that are cut along their second dimension, not the first.
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


# setting up -----------------------------------------------------------------------------------


def start(settings: Settings) -> World:
    """The processes of this run, connected. Raises UserError for a mesh that cannot be."""
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
    shape = mesh_shape(settings.parallel, processes)
    if strategy == "ddp" and processes == 1:
        return World(strategy, shape=shape)
    device, limit = settings.train.device, timedelta(seconds=settings.parallel["timeout"])
    connect(device, limit)
    mesh = None if strategy == "ddp" else device_mesh(device, shape, limit)
    align = settings.parallel.get("align_heads", False)
    return World(strategy, rank(), processes, shape, mesh, align)


def check(settings: Settings, processes: int) -> None:
    """Raises UserError, naming the setting, for what these processes cannot do."""
    block = settings.parallel
    strategy = block["name"]
    if block["muon"] not in STRATEGIES[strategy]:
        accepted = ", ".join(STRATEGIES[strategy])
        raise UserError(f"parallel.muon={block['muon']}: {strategy} takes one of {accepted}")
    timeout = block["timeout"]
    if not isinstance(timeout, int | float) or not 0 < timeout < MOST_MEANS:
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


def mesh_shape(block: dict[str, Any], processes: int) -> tuple[tuple[str, int], ...]:
    if block["name"] == "tp":
        return (("tensor", processes),)
    if block["name"] == "fsdp2_tp":
        return ("data", processes // block["tensor"]), ("tensor", block["tensor"])
    return (("data", processes),)


@functools.cache
def connect(device: str, limit: timedelta) -> None:
    """Join the other processes, once a command: NCCL on GPUs, Gloo on CPUs."""
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    if size() == 1:  # fully_shard wants a group, of one
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend, timeout=limit)


@functools.cache
def device_mesh(device: str, shape: tuple[tuple[str, int], ...], limit: timedelta):
    """torch's DeviceMesh of this shape, each of its groups with the run's time limit.

    (init_device_mesh would give groups of a second dimension torch's own limit of half an hour.)
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh

    names, sizes = zip(*shape, strict=True)
    numbers = torch.arange(size()).view(sizes)
    if len(sizes) == 1:
        return DeviceMesh.from_group(dist.group.WORLD, device, mesh_dim_names=names)
    groups = []
    for dim in range(len(sizes)):
        rows = numbers.movedim(dim, -1).reshape(-1, sizes[dim]).tolist()
        group, _ = dist.new_subgroups_by_enumeration(rows, timeout=limit)
        groups.append(group)
    return DeviceMesh.from_group(groups, device, mesh=numbers, mesh_dim_names=names)

"""Muon over many processes: which matrices are stepped in place, and which travel.

A view is stepped in place if one process holds each of its blocks whole (heads under head-aligned
sharding). The tensors of every other view travel, in batches (batches.py): directions come in from
the shards and updates go out to them, while other batches are orthogonalized.

A parameter without a gradient stays as it is; each process decides this for itself. What travels
depends only on which parameters are trained (`requires_grad`, the same on all processes), not on
gradients: the directions of such a parameter are zero, and it gets no update. So the collectives
match even if processes disagree. Under data parallelism all processes have the same gradients or
none, so they agree, and the step is that of one process.

replicate  every process steps everything, on plain tensors
distribute each process takes its share of the views, balanced by FLOPs; whole sharded tensors
           come and go by all-to-all, updates of plain tensors are all-gathered
gather     every process gathers the whole of sharded tensors, steps all, keeps its own part
blockwise  each process's part of a matrix is a matrix of its own: no communication, NOT the update
           of one process (tp_mode=blockwise of Megatron; MuonBP, arXiv 2510.16981)
"""

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor

from optimizers.moves import Table
from optimizers.sharding.batches import Batch, batches, local_layout, on_all
from optimizers.sharding.regions import (
    Region,
    aligned,
    everything,
    local,
    local_view,
    mesh_of,
    region,
)
from optimizers.stacks import Stack, plan
from optimizers.views import View, block_shapes, only, readable, reordered

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

STRATEGIES = ("replicate", "distribute", "gather", "blockwise")


class Work(NamedTuple):
    """A group's step: stacks of the local tensors, then batches among `processes`.

    active: the tensors that are stepped, those with a gradient; layouts: how each tensor is read in
    memory, including those that only travel; odd: those that cannot be read so in place; tables:
    how kernels reach the stacks' strips, cached here.
    """

    active: list[int]
    layouts: dict[int, str]
    odd: set[int]
    stacks: list[Stack]
    batches: list[Batch]
    processes: dist.ProcessGroup | None
    tables: dict[Any, Table]


def count_processes(params: list[Tensor]) -> int:
    """How many processes hold the parameters: those of a DTensor's mesh or the default group."""
    mesh = mesh_of(params[0]) if params else None
    if mesh is not None:
        return mesh.size()
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_group(params: list[Tensor]) -> dist.ProcessGroup:
    mesh = mesh_of(params[0])
    if mesh is None or mesh.size() == dist.get_world_size():
        everyone = dist.group.WORLD
        assert everyone is not None  # several processes have initialized it
        return everyone
    return mesh.get_group() if mesh.ndim == 1 else mesh._flatten().get_group()


def work(group: dict[str, Any], views: list[View], active: list[int]) -> Work:
    """What this process does in a step of a param group; `views` read its trained tensors.

    active: positions of the tensors that have a gradient.
    """
    params, sharding = group["params"], group["sharding"]
    if not views or sharding == "replicate" or count_processes(params) == 1:
        near = only(views, active)
        layouts = _layouts(near)
        odd = _odd(params, layouts)
        return Work(active, layouts, odd, _stacks(group, near, odd), [], None, {})
    processes = process_group(params)
    held_by, me = regions(params, processes), dist.get_rank(processes)
    shapes, mine = [p.shape for p in params], held_by[me]
    near, far = [], []
    for view in views:
        if sharding == "blockwise" or stays(view, params, sharding, held_by):
            for moving in only([view], active):
                part = local_view(moving, shapes, mine)
                if part is not None:
                    near.append(View(**{**part, "layout": local_layout(view, params)}))
        else:
            far.append(view)
    _refuse_shared(views, far, sharding)
    travelling = batches(group, far, active, held_by, me)
    layouts = _layouts(near) | {
        k: local_layout(view, params) for view in far for k in view["members"]
    }
    odd = _odd(params, layouts)
    return Work(active, layouts, odd, _stacks(group, near, odd), travelling, processes, {})


def _layouts(views: list[View]) -> dict[int, str]:
    return {k: view["layout"] for view in views for k in view["members"]}


def _odd(params: list[Tensor], layouts: dict[int, str]) -> set[int]:
    return {k for k, layout in layouts.items() if not readable(local(params[k]), layout)}


def _stacks(group: dict[str, Any], views: list[View], odd: set[int]) -> list[Stack]:
    """Stacks of the local tensors. A tensor that cannot be read in place is replaced by the outline
    of its copy."""
    if not views:
        return []
    shards = [local(p) for p in group["params"]]
    for k, layout in _layouts(views).items():
        if k in odd:
            shards[k] = reordered(torch.empty(shards[k].shape, device="meta"), layout)
    first = local(group["params"][views[0]["members"][0]])
    one_way = group["second_moment"] == "neuron"
    return plan(shards, views, group["scale"], first.device.type, one_way)


def _refuse_shared(views: list[View], far: list[View], sharding: str) -> None:
    """Raise ValueError if a tensor that travels belongs to two views: directions are per tensor."""
    read = Counter(k for view in views for k in set(view["members"]))
    for k in (k for view in far for k in view["members"] if read[k] > 1):
        raise ValueError(
            f"optimizer sharding={sharding}: tensor {k} is read by {read[k]} views; make it one"
        )


def regions(params: list[Tensor], processes: dist.ProcessGroup) -> list[list[Region]]:
    """By process, the region that it holds of each tensor."""
    mesh = mesh_of(params[0])
    if mesh is None:
        return [[everything(p.shape) for p in params]] * dist.get_world_size(processes)
    ranks = dist.get_process_group_ranks(processes)
    places = [(mesh.mesh == rank).nonzero()[0].tolist() for rank in ranks]
    kinds = [(p.shape, p.placements) for p in cast("list[DTensor]", params)]  # all on the mesh
    found = {
        kind: [region(*kind, tuple(mesh.mesh.shape), place) for place in places]
        for kind in set(kinds)
    }
    return [[found[kind][i] for kind in kinds] for i in range(len(ranks))]


def stays(view: View, params: list[Tensor], sharding: str, held_by: list[list[Region]]) -> bool:
    """Whether a view needs no communication. Under distribute, tensors that all processes hold are
    shared out, except for vectors, which cost next to nothing."""
    shapes = [p.shape for p in params]
    if sharding == "distribute" and on_all(view, shapes, held_by):
        return all(min(shape) == 1 for shape in block_shapes(view, params))
    return aligned(view, shapes, held_by)

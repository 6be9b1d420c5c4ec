"""Muon over many processes: who orthogonalizes which matrix, and how it gets there and back.

A view whose blocks each lie whole with some process (heads under head-aligned sharding) is stepped
where it lies. The tensors of every other view travel, in batches of views of one shape: directions
come in from the shards, updates go out to them.

A parameter without a gradient stays as it is, as each process sees it for itself. What travels
does not depend on that, only on which parameters are trained (`requires_grad`, the same on all):
such a parameter's part of the directions is zero, and no update is applied to it. So the
collectives match even where processes disagree. As data parallelism gives all the same gradients
or none, they do agree, and the step is that of one process.

replicate  every process does all, on plain tensors
distribute each process takes its share of the views, balanced by FLOPs; of sharded tensors the
           whole comes by all-to-all and goes back so, of plain ones the update is all-gathered
gather     of sharded tensors every process gathers the whole, does all, keeps its own part
blockwise  each process's part of a matrix is a matrix of its own: no communication, NOT the update
           of one process (tp_mode=blockwise of Megatron; MuonBP, arXiv 2510.16981)
"""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor

from optimizers.moves import Table
from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.sharding.regions import (
    Region,
    aligned,
    dense,
    everything,
    held_blocks,
    local,
    local_view,
    mesh_of,
    region,
)
from optimizers.stacks import Stack, plan, update_scale
from optimizers.views import (
    View,
    as_matrix,
    as_stored,
    block_shapes,
    only,
    readable,
    reordered,
)

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

STRATEGIES = ("replicate", "distribute", "gather", "blockwise")
ELEMENTS = 2**24  # that a process holds of the whole tensors of one batch, if it can be so few


class Lines(NamedTuple):
    """Rows or columns start..stop of a shard, of one scale; position: the shard's in a batch."""

    position: int
    layout: str
    axis: int
    start: int
    stop: int
    scale: float

    def of(self, shard: Tensor) -> Tensor:
        return as_matrix(shard, self.layout).narrow(self.axis, self.start, self.stop - self.start)


class Batch(NamedTuple):
    """Tensors that travel together. Position: a tensor's place in `members`.

    owners: who orthogonalizes each tensor (None: everyone); held: of each tensor the region of
    every process; senders: who sends its region to the owner; stacks: what this process
    orthogonalizes; lines: the shards' parts with their scales; replicated: all hold all.
    """

    members: list[int]
    shapes: list[torch.Size]
    owners: list[int | None]
    held: list[list[Region]]
    senders: list[list[int]]
    stacks: list[Stack]
    lines: list[Lines]
    replicated: bool


class Work(NamedTuple):
    """A group's step: stacks of the local tensors, then batches among `processes`.

    active: the tensors that are stepped, those with a gradient; layouts: how each is read in
    memory, also of those that only travel; odd: those that cannot be read so where they lie;
    tables: how kernels reach the stacks' strips, kept here.
    """

    active: list[int]
    layouts: dict[int, str]
    odd: set[int]
    stacks: list[Stack]
    batches: list[Batch]
    processes: dist.ProcessGroup | None
    tables: dict[Any, Table]


def count_processes(params: list[Tensor]) -> int:
    """How many processes hold the parameters: all of a DTensor's mesh, or of the default group."""
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
    """What this process does in a step of a param group whose trained tensors `views` read.

    active: positions of the tensors that have a gradient.
    """
    params, sharding = group["params"], group["sharding"]
    if not views or sharding == "replicate" or count_processes(params) == 1:
        near = only(views, active)
        layouts = _layouts(near)
        odd = _odd(params, layouts)
        return Work(active, layouts, odd, _stacks(group, near, odd), [], None, {})
    processes = process_group(params)
    held_by = regions(params, processes)
    shapes, mine = [p.shape for p in params], held_by[dist.get_rank(processes)]
    near, far = [], []
    for view in views:
        if sharding == "blockwise" or stays(view, params, sharding, held_by):
            for moving in only([view], active):
                part = local_view(moving, shapes, mine)
                if part is not None:
                    near.append(View(**{**part, "layout": _layout(view, params)}))
        else:
            far.append(view)
    _refuse_shared(views, far, sharding)
    layouts = _layouts(near) | {k: _layout(view, params) for view in far for k in view["members"]}
    batches = _batches(group, far, active, held_by, processes)
    odd = _odd(params, layouts)
    return Work(active, layouts, odd, _stacks(group, near, odd), batches, processes, {})


def _layouts(views: list[View]) -> dict[int, str]:
    return {k: view["layout"] for view in views for k in view["members"]}


def _odd(params: list[Tensor], layouts: dict[int, str]) -> set[int]:
    return {k for k, layout in layouts.items() if not readable(local(params[k]), layout)}


def _stacks(group: dict[str, Any], views: list[View], odd: set[int]) -> list[Stack]:
    """Of local tensors; in the place of one that cannot be read where it lies, its copy's
    outline."""
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
    """Directions are formed a tensor at a time, so one that travels belongs to one view."""
    read = Counter(k for view in views for k in set(view["members"]))
    for k in (k for view in far for k in view["members"] if read[k] > 1):
        raise ValueError(
            f"optimizer sharding={sharding}: tensor {k} is read by {read[k]} views; make it one"
        )


def regions(params: list[Tensor], processes: dist.ProcessGroup) -> list[list[Region]]:
    """By process, what it holds of each tensor."""
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
    """Whether a view needs no communication. Under distribute what all hold is shared out, but for
    vectors, which cost next to nothing."""
    shapes = [p.shape for p in params]
    if sharding == "distribute" and _replicated(view, shapes, held_by):
        return all(min(shape) == 1 for shape in block_shapes(view, params))
    return aligned(view, shapes, held_by)


def _replicated(view: View, shapes: list[torch.Size], held_by: list[list[Region]]) -> bool:
    return all(held[k] == everything(shapes[k]) for held in held_by for k in view["members"])


def _layout(view: View, params: list[Tensor]) -> str:
    """A view's layout in the local tensors, which need not keep the memory format of the whole."""
    return as_stored(local(params[view["members"][0]]), dense(view["layout"]))


def longest_first(costs: list[float], processes: int) -> list[int]:
    """The process of each unit: the dearest first, each to whom has least so far.

    Longest processing time first: at most 4/3 - 1/(3 N) of the best (Graham 1969).
    """
    loads, owners = [0.0] * processes, [0] * len(costs)
    for unit in sorted(range(len(costs)), key=lambda unit: -costs[unit]):
        owners[unit] = loads.index(min(loads))
        loads[owners[unit]] += costs[unit]
    return owners


def cost(view: View, group: dict[str, Any]) -> float:
    """Multiplications of the iteration, and one for each element that is moved and normed."""
    orthogonalizer = Orthogonalizer(**group["orthogonalizer"])
    device = group["params"][view["members"][0]].device
    return sum(
        count * (orthogonalizer.multiplications(*shape, device) + prod(shape))
        for shape, count in Counter(block_shapes(view, group["params"])).items()
    )


def _batches(
    group: dict[str, Any],
    views: list[View],
    active: Collection[int],
    held_by: list[list[Region]],
    processes: dist.ProcessGroup,
) -> list[Batch]:
    """Views of one shape together, in rounds that keep what a process holds within ELEMENTS."""
    params, count = group["params"], len(held_by)
    shapes = [p.shape for p in params]
    everyone = group["sharding"] == "gather"
    owners: Sequence[int | None] = [None] * len(views)
    if not everyone:
        owners = longest_first([cost(view, group) for view in views], count)

    def kind(unit: int) -> tuple:
        view = views[unit]
        return [shapes[k] for k in view["members"]], _replicated(view, shapes, held_by)

    batches = []
    for (sizes, replicated), same in groupby(sorted(range(len(views)), key=kind), key=kind):
        elements = sum(map(prod, sizes)) * (count if replicated else 1)
        each = max(1, ELEMENTS // max(1, elements))  # of one owner in one round
        rounds: dict[int, list[int]] = {}
        taken = dict.fromkeys([*range(count), None], 0)
        for unit in same:
            rounds.setdefault(taken[owners[unit]] // each, []).append(unit)
            taken[owners[unit]] += 1
        for units in rounds.values():
            chosen = [(views[unit], owners[unit]) for unit in units]
            me = dist.get_rank(processes)
            batches.append(_batch(group, chosen, active, held_by, me, replicated))
    return batches


def _batch(
    group: dict[str, Any],
    units: list[tuple[View, int | None]],
    active: Collection[int],
    held_by: list[list[Region]],
    me: int,
    replicated: bool,
) -> Batch:
    params, shapes = group["params"], [p.shape for p in group["params"]]
    members = [k for view, _ in units for k in view["members"]]
    place = {k: position for position, k in enumerate(members)}
    owners = {k: owner for view, owner in units for k in view["members"]}
    owned, lines = [], []
    for view, owner in units:
        if owner in (None, me):
            blocks = [[[place[k], *ends] for k, *ends in block] for block in view["blocks"]]
            renumbered = [place[k] for k in view["members"]]
            layout = dense(view["layout"])
            owned.append(View(members=renumbered, layout=layout, axis=view["axis"], blocks=blocks))
        layout = _layout(view, params)
        scaled = _scaled(only([view], active), params, group["scale"])
        runs = View(**{**view, "blocks": [[run] for run, _ in scaled]})
        for held, (_, scale) in zip(held_blocks(runs, shapes, held_by[me]), scaled, strict=True):
            for k, start, stop in held:
                lines.append(Lines(place[k], layout, view["axis"], start, stop, scale))
    outlines = [torch.empty(shapes[k], device="meta") for k in members]
    return Batch(
        members=members,
        shapes=[shapes[k] for k in members],
        owners=[owners[k] for k in members],
        held=[[held[k] for held in held_by] for k in members],
        senders=[_senders([held[k] for held in held_by], owners[k]) for k in members],
        stacks=plan(outlines, owned, group["scale"], params[members[0]].device.type)
        if owned
        else [],
        lines=lines,
        replicated=replicated,
    )


def _senders(held: list[Region], target: int | None) -> list[int]:
    """From whom the target gets each region that there is: itself, or the first that holds it."""
    chosen: dict[Region, int] = {}
    for rank, found in enumerate(held):
        if rank == target or found not in chosen:
            chosen[found] = rank
    return sorted(chosen.values())


def _scaled(views: list[View], params: list[Tensor], rule: str) -> list[tuple[list[int], float]]:
    """Pieces of the views with the scale of their blocks, neighbours of one scale put together."""
    found = [
        (piece, update_scale(rule, *shape))
        for view in views
        for block, shape in zip(view["blocks"], block_shapes(view, params), strict=True)
        for piece in block
    ]
    runs: list[tuple[list[int], float]] = []
    for (member, start, stop), scale in sorted(found):
        if runs and (runs[-1][0][0], runs[-1][0][2], runs[-1][1]) == (member, start, scale):
            runs[-1][0][2] = stop
        else:
            runs.append(([member, start, stop], scale))
    return runs

"""For the views that travel: which process orthogonalizes each, and how they form batches.

Communication overlaps batch by batch (optimizers/step.py): while one batch is orthogonalized, the
next one arrives and the last one leaves.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import groupby
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.sharding.regions import Region, dense, everything, held_blocks, local
from optimizers.stacks import Stack, plan, update_scale
from optimizers.views import View, as_matrix, as_stored, block_shapes, only

ELEMENTS = 2**24  # of the whole tensors of one batch on one process, if possible
# The least number of batches, if there are enough views: one arrives and one leaves while a third
# is orthogonalized. More batches would hide more of the first arrival and the last departure, but
# each adds the latency of its calls, and stacks get smaller.
BATCHES = 3


class Lines(NamedTuple):
    """Rows or columns start..stop of a shard with one scale; position: the shard's in a batch."""

    position: int
    layout: str
    axis: int
    start: int
    stop: int
    scale: float

    def of(self, shard: Tensor) -> Tensor:
        return as_matrix(shard, self.layout).narrow(self.axis, self.start, self.stop - self.start)


class Batch(NamedTuple):
    """Tensors that travel together. Position: the index of a tensor in `members`.

    owners: the process that orthogonalizes each tensor (None: all); held: for each tensor the
    region of every process; senders: the processes that send their regions to the owner; stacks:
    what this process orthogonalizes; lines: parts of the shards with their scales; replicated: all
    hold all.
    """

    members: list[int]
    shapes: list[torch.Size]
    owners: list[int | None]
    held: list[list[Region]]
    senders: list[list[int]]
    stacks: list[Stack]
    lines: list[Lines]
    replicated: bool


def on_all(view: View, shapes: list[torch.Size], held_by: list[list[Region]]) -> bool:
    """Whether every process holds all of the view's tensors."""
    return all(held[k] == everything(shapes[k]) for held in held_by for k in view["members"])


def local_layout(view: View, params: list[Tensor]) -> str:
    """A view's layout in the local tensors; they may have another memory format than the whole."""
    return as_stored(local(params[view["members"][0]]), dense(view["layout"]))


def longest_first(costs: list[float], kinds: list[Any], processes: int) -> list[int]:
    """Assign units to processes: the most expensive first, each to the process with the least cost.

    Longest processing time first: at most 4/3 - 1/(3 N) of the best (Graham 1969). Among units of
    equal cost, those of one kind (they travel together) follow each other, so that every process
    has its share of each batch. Otherwise the processes would wait for each other, batch by batch.
    """
    loads, owners = [0.0] * processes, [0] * len(costs)
    for unit in sorted(range(len(costs)), key=lambda unit: (-costs[unit], kinds[unit])):
        owners[unit] = loads.index(min(loads))
        loads[owners[unit]] += costs[unit]
    return owners


def cost(view: View, group: dict[str, Any]) -> float:
    """Multiplications of the iteration, plus one for each element that is moved and normed."""
    orthogonalizer = Orthogonalizer(**group["orthogonalizer"])
    device = group["params"][view["members"][0]].device
    return sum(
        count * (orthogonalizer.multiplications(*shape, device) + prod(shape))
        for shape, count in Counter(block_shapes(view, group["params"])).items()
    )


def batches(
    group: dict[str, Any],
    views: list[View],
    active: Collection[int],
    held_by: list[list[Region]],
    me: int,
) -> list[Batch]:
    """Views of one shape together, in rounds that keep what a process holds within ELEMENTS and
    within its share of all elements divided by BATCHES. All processes get the same order."""
    params, count = group["params"], len(held_by)
    shapes = [p.shape for p in params]
    everyone = group["sharding"] == "gather"
    owners: Sequence[int | None] = [None] * len(views)

    def kind(unit: int) -> tuple:
        view = views[unit]
        return [shapes[k] for k in view["members"]], on_all(view, shapes, held_by)

    if not everyone:
        costs = [cost(view, group) for view in views]
        owners = longest_first(costs, [kind(unit) for unit in range(len(views))], count)

    def held(unit: int) -> int:
        sizes, replicated = kind(unit)
        return sum(map(prod, sizes)) * (count if replicated else 1)

    units = range(len(views))
    limit = min(ELEMENTS, sum(map(held, units)) // (BATCHES * (1 if everyone else count)))
    found = []
    for (_, replicated), alike in groupby(sorted(units, key=kind), key=kind):
        same = list(alike)
        each = max(1, limit // max(1, held(same[0])))  # tensors per owner and round
        rounds: dict[int, list[int]] = {}
        taken = dict.fromkeys([*range(count), None], 0)
        for unit in same:
            rounds.setdefault(taken[owners[unit]] // each, []).append(unit)
            taken[owners[unit]] += 1
        for together in rounds.values():
            chosen = [(views[unit], owners[unit]) for unit in together]
            found.append(_batch(group, chosen, active, held_by, me, replicated))
    return found


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
        layout = local_layout(view, params)
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
    """For each region the process that sends it to the target: the target or its first holder."""
    chosen: dict[Region, int] = {}
    for rank, found in enumerate(held):
        if rank == target or found not in chosen:
            chosen[found] = rank
    return sorted(chosen.values())


def _scaled(views: list[View], params: list[Tensor], rule: str) -> list[tuple[list[int], float]]:
    """Pieces of the views with the scale of their blocks; neighbours with one scale are merged."""
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

"""Between shards and whole tensors: the collectives of one batch of optimizers/sharding/plan.py."""

from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from optimizers.orthogonalize.workspace import Workspace
from optimizers.sharding.plan import Batch
from optimizers.sharding.regions import boxes

# As torch calls it from 2.13 on, and before; looked up at each call, as measuring replaces it.
ALL_GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"


def fetch(
    batch: Batch, shards: list[Tensor], processes: dist.ProcessGroup, workspace: Workspace
) -> dict[int, Tensor]:
    """By position the whole tensors that this process orthogonalizes, from everyone's shards."""
    me, count = dist.get_rank(processes), dist.get_world_size(processes)
    mine = [t for t, owner in enumerate(batch.owners) if owner in (None, me)]
    sizes = [prod(batch.shapes[t]) for t in mine]
    flat = workspace.empty("whole", (sum(sizes),), shards[0].dtype)
    wholes = {
        t: part.view(batch.shapes[t]) for t, part in zip(mine, flat.split(sizes), strict=True)
    }
    reads: list[list[Tensor]] = [[] for _ in range(count)]
    writes: list[list[Tensor]] = [[] for _ in range(count)]
    for t, owner in enumerate(batch.owners):
        if me in batch.senders[t]:
            parts = [shards[t][inner] for _, inner in boxes(batch.held[t][me])]
            reads[me if owner is None else owner] += parts
        if t in wholes:
            for sender in batch.senders[t]:
                writes[sender] += [wholes[t][outer] for outer, _ in boxes(batch.held[t][sender])]
    _copy(reads[me], writes[me])
    if batch.owners[0] is None:
        _all_gather(reads[me], writes, processes, flat)
    elif not batch.replicated:
        _all_to_all(reads, writes, processes, flat)
    return wholes


def deliver(
    batch: Batch, wholes: dict[int, Tensor], shards: list[Tensor], processes: dist.ProcessGroup
) -> None:
    """Everyone's part of the whole tensors, from those that have them to the shards."""
    me, count = dist.get_rank(processes), dist.get_world_size(processes)
    reads: list[list[Tensor]] = [[] for _ in range(count)]
    writes: list[list[Tensor]] = [[] for _ in range(count)]
    for t, owner in enumerate(batch.owners):
        if t in wholes:
            for target in [me] if owner is None else range(count):
                reads[target] += [wholes[t][outer] for outer, _ in boxes(batch.held[t][target])]
        parts = [shards[t][inner] for _, inner in boxes(batch.held[t][me])]
        writes[me if owner is None else owner] += parts
    _copy(reads[me], writes[me])
    if batch.replicated:
        _all_gather(reads[me], writes, processes, shards[0])
    elif batch.owners[0] is not None:
        _all_to_all(reads, writes, processes, shards[0])


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _flat(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([like.new_empty(0), *(tensor.reshape(-1) for tensor in tensors)])


def _unpack(flat: Tensor, targets: list[Tensor]) -> None:
    """`flat` may be longer."""
    begin = 0
    for target in targets:
        target.copy_(flat[begin : begin + target.numel()].view(target.shape))
        begin += target.numel()


def _size(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _all_to_all(
    reads: list[list[Tensor]],
    writes: list[list[Tensor]],
    processes: dist.ProcessGroup,
    like: Tensor,
) -> None:
    """Send reads[i] to process i and fill writes[i] with what comes from it."""
    me = dist.get_rank(processes)
    reads = [[] if i == me else tensors for i, tensors in enumerate(reads)]
    writes = [[] if i == me else tensors for i, tensors in enumerate(writes)]
    sizes = [_size(tensors) for tensors in writes]
    received = like.new_empty(sum(sizes))
    sent = _flat([tensor for tensors in reads for tensor in tensors], like)
    splits = [_size(tensors) for tensors in reads]
    dist.all_to_all_single(received, sent, sizes, splits, group=processes)
    for part, targets in zip(received.split(sizes), writes, strict=True):
        _unpack(part, targets)


def _all_gather(
    reads: list[Tensor],
    writes: list[list[Tensor]],
    processes: dist.ProcessGroup,
    like: Tensor,
) -> None:
    """Send reads to all and fill writes[i] with what comes from process i.

    In one call, padded to the longest; where most would be padding, one call for each sender.
    """
    me, count = dist.get_rank(processes), len(writes)
    sizes = [_size(tensors) for tensors in writes]
    sent = _flat(reads, like)
    if max(sizes) * count > 2 * sum(sizes):
        received = {i: like.new_empty(size) for i, size in enumerate(sizes) if size and i != me}
        for i in range(count):
            if sizes[i]:
                dist.broadcast(sent if i == me else received[i], group=processes, group_src=i)
    else:
        padded = like.new_empty(max(sizes))
        padded[: len(sent)] = sent
        flat = like.new_empty(count * max(sizes))
        getattr(dist, ALL_GATHER)(flat, padded, group=processes)
        received = dict(enumerate(flat.split(max(sizes))))
    for i, part in received.items():
        if i != me:
            _unpack(part, writes[i])

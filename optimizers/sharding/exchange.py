"""Between shards and whole tensors: the collectives of one batch (batches.py).

Starting and finishing are separate calls, so that a process can multiply in between. This is safe:

order   One thread starts the collectives of a step in the order of the batches, which is the same
        on all processes. It takes part in every collective, even with nothing to send. Backends
        match collectives by that order, so it does not matter which one ends first.
memory  A collective reads and writes tensors that are allocated for it alone. Its Flight keeps
        them until it has finished. No workspace and no parameter is touched before that.
Gloo    Its own threads do the work; `wait` blocks the caller until it is done.
NCCL    A collective runs in NCCL's own stream, as soon as the caller's stream has produced the
        data to send. `wait` makes the caller's stream, not the host, wait for the collective's
        end. Everything that reads or frees its tensors comes later in that stream.
"""

from math import prod
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from optimizers.orthogonalize.workspace import Workspace
from optimizers.sharding.batches import Batch
from optimizers.sharding.regions import Region, boxes, extent

# torch's name from 2.13 on, and the earlier one; looked up at each call, as measuring replaces it.
ALL_GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"


class Flight(NamedTuple):
    """Started collectives, the tensors that they read, and those that they write, by sender."""

    works: list[Any]
    sent: list[Tensor]
    received: dict[int, Tensor]


def own(batch: Batch, process: int) -> list[int]:
    """Positions of the tensors that a process orthogonalizes."""
    return [t for t, owner in enumerate(batch.owners) if owner in (None, process)]


def fetch(batch: Batch, shards: dict[int, Tensor], processes: dist.ProcessGroup) -> Flight:
    """Start to fetch, from the shards of all processes, the whole tensors that this process
    orthogonalizes. By position; `shards` of other tensors are free afterwards."""
    me, count = dist.get_rank(processes), dist.get_world_size(processes)
    reads: list[list[Tensor]] = [[] for _ in range(count)]
    for t, owner in enumerate(batch.owners):
        if me in batch.senders[t]:
            target = me if owner is None else owner
            reads[target] += [shards[t][inner] for _, inner in boxes(batch.held[t][me])]
    sizes = [0] * count
    for t in own(batch, me):
        for sender in batch.senders[t]:
            sizes[sender] += _elements(batch.held[t][sender])
    if batch.owners[0] is None:
        return _all_gather(reads[me], sizes, processes, shards[0])
    if batch.replicated:
        return Flight([], [], {})
    return _all_to_all(reads, sizes, processes, shards[0])


def fetched(
    batch: Batch,
    flight: Flight,
    shards: dict[int, Tensor],
    dtype: torch.dtype,
    processes: dist.ProcessGroup,
    workspace: Workspace,
) -> dict[int, Tensor]:
    """Those tensors, after they have arrived; valid until the next call."""
    me, count = dist.get_rank(processes), dist.get_world_size(processes)
    mine = own(batch, me)
    sizes = [prod(batch.shapes[t]) for t in mine]
    flat = workspace.empty("whole", (sum(sizes),), dtype)
    wholes = {
        t: part.view(batch.shapes[t]) for t, part in zip(mine, flat.split(sizes), strict=True)
    }
    writes: list[list[Tensor]] = [[] for _ in range(count)]
    for t, whole in wholes.items():
        for sender in batch.senders[t]:
            for outer, inner in boxes(batch.held[t][sender]):
                if sender == me:
                    whole[outer].copy_(shards[t][inner])
                else:
                    writes[sender].append(whole[outer])
    wait(flight)
    for sender, received in flight.received.items():
        _unpack(received, writes[sender])
    return wholes


def deliver(
    batch: Batch,
    wholes: dict[int, Tensor],
    shards: dict[int, Tensor],
    dtype: torch.dtype,
    processes: dist.ProcessGroup,
    workspace: Workspace,
) -> Flight:
    """Start to send each process its part of the whole tensors, from the processes that have them.
    This process's own part is written to `shards`. `wholes` are free afterwards."""
    me, count = dist.get_rank(processes), dist.get_world_size(processes)
    for t, whole in wholes.items():
        for outer, inner in boxes(batch.held[t][me]):
            shards[t][inner].copy_(whole[outer])
    if batch.owners[0] is None:
        return Flight([], [], {})
    reads = [
        [whole[outer] for t, whole in wholes.items() for outer, _ in boxes(batch.held[t][target])]
        for target in range(count)
    ]
    sizes = [sum(_elements(batch.held[t][me]) for t in own(batch, i)) for i in range(count)]
    like = torch.empty(0, dtype=dtype, device=workspace.device)
    if batch.replicated:
        return _all_gather(reads[me], sizes, processes, like)
    return _all_to_all(reads, sizes, processes, like)


def delivered(
    batch: Batch, flight: Flight, params: list[Tensor], processes: dist.ProcessGroup
) -> dict[int, Tensor]:
    """By position, this process's parts of other processes' tensors, after they have arrived. Each
    has the memory order of its parameter."""
    me = dist.get_rank(processes)
    wait(flight)
    found: dict[int, Tensor] = {}
    for sender, received in flight.received.items():
        begin = 0
        for t in own(batch, sender):
            end = begin + _elements(batch.held[t][me])
            part, places = received[begin:end], boxes(batch.held[t][me])
            if len(places) == 1 and params[t].is_contiguous():
                found[t] = part.view(params[t].shape)
            else:
                found[t] = torch.empty_like(params[t], dtype=part.dtype)
                _unpack(part, [found[t][inner] for _, inner in places])
            begin = end
    return found


def wait(flight: Flight) -> None:
    """Wait until the received data can be read. Raises the error of a failed collective."""
    for work in flight.works:
        work.wait()


def _unpack(flat: Tensor, targets: list[Tensor]) -> None:
    """Fill the targets from the start of `flat`, which may be longer."""
    begin = 0
    for target in targets:
        target.copy_(flat[begin : begin + target.numel()].view(target.shape))
        begin += target.numel()


def _elements(held: Region) -> int:
    return prod(extent(held))


def _flat(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([like.new_empty(0), *(tensor.reshape(-1) for tensor in tensors)])


def _all_to_all(
    reads: list[list[Tensor]], sizes: list[int], processes: dist.ProcessGroup, like: Tensor
) -> Flight:
    """Send reads[i] to process i and receive sizes[i] elements from it."""
    me = dist.get_rank(processes)
    reads = [[] if i == me else tensors for i, tensors in enumerate(reads)]
    sizes = [0 if i == me else size for i, size in enumerate(sizes)]
    received = like.new_empty(sum(sizes))
    sent = _flat([tensor for tensors in reads for tensor in tensors], like)
    splits = [sum(tensor.numel() for tensor in tensors) for tensors in reads]
    work = dist.all_to_all_single(received, sent, sizes, splits, group=processes, async_op=True)
    parts = {i: part for i, part in enumerate(received.split(sizes)) if i != me}
    return Flight([work], [sent], parts)


def _all_gather(
    reads: list[Tensor], sizes: list[int], processes: dist.ProcessGroup, like: Tensor
) -> Flight:
    """Send reads to all processes and receive sizes[i] elements from process i.

    It takes one call, padded to the longest part, or one call per sender if most would be padding.
    """
    me, count = dist.get_rank(processes), len(sizes)
    sent = _flat(reads, like)
    if max(sizes) * count > 2 * sum(sizes):
        received = {i: like.new_empty(size) for i, size in enumerate(sizes) if size and i != me}
        works = [
            dist.broadcast(
                sent if i == me else received[i], group=processes, group_src=i, async_op=True
            )
            for i in range(count)
            if sizes[i]
        ]
        return Flight(works, [sent], received)
    if len(sent) < max(sizes):
        sent = _flat([sent, like.new_empty(max(sizes) - len(sent))], like)
    flat = like.new_empty(count * max(sizes))
    work = getattr(dist, ALL_GATHER)(flat, sent, group=processes, async_op=True)
    received = {i: part for i, part in enumerate(flat.split(max(sizes))) if i != me}
    return Flight([work], [sent], received)

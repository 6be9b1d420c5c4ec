"""A plain model of a training step's communication: calls and bytes per process, from shapes.

It knows how this suite shares the work (optimizers/sharding/; torch's DDP and fully_shard), but not
how a library carries out a call. Bytes are counted as in traffic.py. There are N processes; a
process is identified by its rank in the group that shares something.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from optimizers.sharding.batches import BATCHES, ELEMENTS, longest_first

# DistributedDataParallel's first bucket and all other buckets, in bytes.
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20


@dataclass
class Moved:
    """For one kind of collective: calls, and the bytes sent and received by each process."""

    calls: int
    sent: list[float]
    received: list[float]


Forecast = dict[str, Moved]  # by kind


@dataclass(frozen=True)
class Travelling:
    """The tensors of one view that travel in a step of Muon.

    shapes: those of the tensors, which decide the batches of views; parts: how many of the numbers
    each process holds; work: multiplications of the iteration, plus one per number.
    """

    shapes: tuple[tuple[int, ...], ...]
    parts: tuple[int, ...]
    elements: int
    work: float = field(default=0.0, compare=False)

    @property
    def replicated(self) -> bool:
        return all(part == self.elements for part in self.parts)

    @property
    def kind(self) -> tuple:
        """Views of one kind travel together."""
        return self.shapes, self.replicated


def add(forecast: Forecast, kind: str, calls: int, sent: list[float], received: list[float]):
    before = forecast.setdefault(kind, Moved(0, [0.0] * len(sent), [0.0] * len(sent)))
    before.calls += calls
    before.sent = [a + b for a, b in zip(before.sent, sent, strict=True)]
    before.received = [a + b for a, b in zip(before.received, received, strict=True)]


# the optimizer's step -----------------------------------------------------------------------------


def muon_step(
    views: list[Travelling], count: int, sharding: str, itemsize: int, owners: list[int]
) -> Forecast:
    """What one param group of Muon moves. AdamW, replicate and blockwise move nothing.

    itemsize: bytes of a number in transit. Batches are as in sharding/batches.py: views of one
    shape, in rounds. M: bytes of everything that travels, M_r of what process r owns; if N divides
    the shards:

    distribute, shards    two all-to-alls per batch; r sends (M - M_r)/N + (N - 1)/N M_r
    distribute, replicas  one all-gather per batch, padded to the most that one process owns
    gather                one all-gather per batch; each process sends (N - 1)/N M
    """
    forecast: Forecast = {}
    gathered = sharding == "gather"
    for batch in batches(views, count, None if gathered else owners):
        elements = [views[unit].elements for unit in batch]
        if gathered:
            lengths = [sum(views[unit].parts[r] for unit in batch) for r in range(count)]
        elif views[batch[0]].replicated:
            pairs = list(zip(elements, (owners[unit] for unit in batch), strict=True))
            lengths = [sum(e for e, owner in pairs if owner == r) for r in range(count)]
        else:
            held = [
                sum(parts) for parts in zip(*(views[unit].parts for unit in batch), strict=True)
            ]
            for unit in batch:
                own = owners[unit]
                held[own] += views[unit].elements - 2 * views[unit].parts[own]
            moved = [float(itemsize * numbers) for numbers in held]
            add(forecast, "all_to_all", 2, moved, moved)
            continue
        all_gather(forecast, [itemsize * length for length in lengths])
    return forecast


def batches(views: list[Travelling], count: int, owners: list[int] | None) -> Iterable[list[int]]:
    """The indices of the views in each batch: of one shape, with as many per owner as ELEMENTS and
    the owner's share of everything that travels, divided by BATCHES, allow."""

    def held(view: Travelling) -> int:
        return view.elements * (count if view.replicated else 1)

    every = sum(map(held, views))
    limit = min(ELEMENTS, every // (BATCHES * (1 if owners is None else count)))
    units = sorted(range(len(views)), key=lambda unit: views[unit].kind)
    for _, same in groupby(units, key=lambda unit: views[unit].kind):
        alike = list(same)
        each = max(1, limit // max(1, held(views[alike[0]])))
        taken: Counter[int | None] = Counter()
        rounds: dict[int, list[int]] = {}
        for unit in alike:
            owner = None if owners is None else owners[unit]
            rounds.setdefault(taken[owner] // each, []).append(unit)
            taken[owner] += 1
        yield from rounds.values()


def all_gather(forecast: Forecast, lengths: list[float]) -> None:
    """All processes' bytes go to all: padded, or if most were padding, one broadcast per sender."""
    count, longest = len(lengths), max(lengths)
    if longest * count > 2 * sum(lengths):
        sent = [(count - 1) * length for length in lengths]
        received = [sum(lengths) - length for length in lengths]
        add(forecast, "broadcast", sum(length > 0 for length in lengths), sent, received)
    else:
        each = [(count - 1) * longest] * count
        add(forecast, "all_gather", 1, each, each)


def share_out(views: list[Travelling], count: int) -> list[int]:
    """The process that orthogonalizes each view."""
    return longest_first([view.work for view in views], [view.kind for view in views], count)


# forward and backward -----------------------------------------------------------------------------


def data_parallel(sizes: list[int], count: int) -> Forecast:
    """DDP: averages gradients by all-reduces, one per bucket: 2 (N - 1)/N W.

    sizes: bytes of each parameter, in the order of the model. Buckets fill from the last parameter
    backwards, which holds if a model's backward pass follows that order.
    """
    buckets, filled, limit = 0, 0, FIRST_BUCKET
    for size in reversed(sizes):
        filled += size
        if filled >= limit:
            buckets, filled, limit = buckets + 1, 0, BUCKET
    each = [2 * (count - 1) / count * sum(sizes)] * count
    forecast: Forecast = {}
    add(forecast, "all_reduce", buckets + (filled > 0), each, each)
    return forecast


def fully_sharded(layers: list[int], root: int, count: int) -> Forecast:
    """fully_shard: about 2 all-gathers and 1 reduce-scatter of (N - 1)/N W each.

    layers, root: bytes of a process's part of each layer's weights, and of all other weights, which
    stay gathered from forward to backward. A part is padded if N does not divide a weight.
    """
    forecast: Forecast = {}
    units = [*layers, root] if root else layers
    gathered = [(count - 1) * float(2 * sum(layers) + root)] * count
    reduced = [(count - 1) * float(sum(units))] * count
    add(forecast, "all_gather", 2 * len(layers) + (root > 0), gathered, gathered)
    add(forecast, "reduce_scatter", len(units), reduced, reduced)
    return forecast


def tensor_parallel(
    columns: list[tuple[int, int, bool]], rows: list[int], units: int, count: int, itemsize: int
) -> Forecast:
    """All-reduces of activations: in forward after every map sharded along its fan-in (rows: their
    fan-outs), in backward before every map sharded along its fan-out (columns: its fan-in, its
    fan-out, and whether it has a bias, whose fp32 gradient is summed too).

    units: rows of a map's input, e.g. tokens; itemsize: bytes per number of a map's output. The
    input comes from a norm in fp32, and its gradient is summed in fp32: autocast comes later.
    """
    sizes = [units * fan_out * itemsize for fan_out in rows]
    sizes += [units * fan_in * 4 for fan_in, _, _ in columns]
    sizes += [4 * fan_out for _, fan_out, bias in columns if bias]
    each = [2 * (count - 1) / count * sum(sizes)] * count
    forecast: Forecast = {}
    if sizes:
        add(forecast, "all_reduce", len(sizes), each, each)
    return forecast


# time ---------------------------------------------------------------------------------------------


def milliseconds(
    forecast: Forecast, latency: Callable[[str], float], bandwidth: Callable[[str], float]
) -> float:
    """Calls x latency (s) + bytes / bandwidth (bytes/s), for the process that moves most."""
    seconds = 0.0
    for kind, moved in forecast.items():
        most = max(max(moved.sent), max(moved.received))
        seconds += moved.calls * latency(kind) + most / bandwidth(kind)
    return 1e3 * seconds


def sent_bytes(collectives: dict[str, dict[str, Any]]) -> int:
    """Bytes over all kinds, counted or predicted."""
    return sum(kind["sent_bytes"] for kind in collectives.values())


def of_process(forecast: Forecast, number: int) -> dict[str, dict[str, Any]]:
    """One process's part, in the form of traffic.count."""
    return {
        kind: {
            "calls": moved.calls,
            "sent_bytes": round(moved.sent[number]),
            "received_bytes": round(moved.received[number]),
        }
        for kind, moved in forecast.items()
    }

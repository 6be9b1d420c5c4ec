"""What collectives move, seen at torch's own operators, and how long a step's collectives take.

Bytes are those that a process must send to and receive from others with the leanest algorithm,
whatever the library does. For N processes and S bytes:

    all_reduce      2 (N - 1)/N S each way (a ring)          S: the tensor
    all_gather      (N - 1) S each way                       S: a process's part
    reduce_scatter  (N - 1) S each way                       S: a process's part
        all_to_all      what goes to and comes from others, not a process's part for itself
    broadcast       (N - 1) S from the root, S to each other, so that both sums are equal
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measuring import meter
from optimizers import step
from optimizers.sharding import exchange
from optimizers.sharding.exchange import ALL_GATHER

# Operators by name: c10d's, then the functional ones that DTensor uses.
KINDS = {
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "alltoall_base_": "all_to_all",
    "broadcast_": "broadcast",
    "all_reduce": "all_reduce",
    "all_gather_into_tensor": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
}
SPACES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")
SILENT = ("wait_tensor", "_wrap_tensor_autograd", "barrier")  # operators that move nothing

# Parts of a step, by the calls in them: a module and a name. Communication means the calls that
# start collectives and the waiting for them, not transfers during other work.
PARTS: dict[str, list[tuple[Any, str]]] = {
    "communication": [
        *((dist, name) for name in ("all_to_all_single", ALL_GATHER, "broadcast")),
        (exchange, "wait"),
    ],
    "orthogonalization": [(step, "polar")],
}

Moved = dict[str, dict[str, int]]  # by kind: calls, sent_bytes, received_bytes


class _Watch(TorchDispatchMode):
    """Notes what each collective moves for this process."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: dict[str, list[float]] = {}
        self.missed: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(one, DTensor) for one in types):
            return NotImplemented  # it calls collectives of its own, which come here again
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if func.namespace not in SPACES or name in SILENT:
            return out
        if name not in KINDS:
            self.missed.add(name)
            return out
        kind = KINDS[name]
        both = self.moved.setdefault(kind, [0.0, 0.0])
        for way, moved in enumerate(_moved(kind, args)):
            both[way] += moved
        return out


def _moved(kind: str, args: tuple) -> tuple[float, float]:
    """Bytes sent and received."""
    group = _group(args)
    count, me = group.size(), group.rank()
    if kind == "all_to_all":
        received, sent, _, into, of = args[:5]
        return _to_others(sent, of, me, count), _to_others(received, into, me, count)
    first = args[0][0] if isinstance(args[0], list | tuple) else args[0]
    size = first.numel() * first.element_size()
    if kind == "broadcast":
        return ((count - 1) * size, 0) if args[2] == me else (0, size)
    if kind == "all_reduce":
        each = 2 * (count - 1) / count * size
    elif kind == "all_gather":  # c10d: output, input; functional: input, group size, …
        each = (count - 1) * (_bytes(args[1]) if isinstance(args[1], Tensor) else size)
    else:  # reduce_scatter; c10d: output, input; functional: input, …
        each = (count - 1) * (size if isinstance(args[1], Tensor) else size / count)
    return each, each


def _group(args: tuple) -> dist.ProcessGroup:
    for one in args:
        if isinstance(one, torch.ScriptObject) and "ProcessGroup" in str(one._type()):
            return dist.ProcessGroup.unbox(one)
    return dist.distributed_c10d._resolve_process_group(args[-1])


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _to_others(tensor: Tensor, splits: list[int], me: int, count: int) -> float:
    """Bytes of the rows for other processes; without splits all have equally many."""
    rows = splits or [tensor.shape[0] // count] * count
    return (sum(rows) - rows[me]) * _bytes(tensor) / max(1, tensor.shape[0])


def count(work: Callable[[], object]) -> Moved:
    """What the collectives in `work` move for this process, by kind. No kind: no communication.

    Calls are those that torch's CommDebugMode counts. Raises RuntimeError for an unknown collective
    instead of counting too little.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from CommDebugMode's hooks, which follow modules
        with CommDebugMode() as calls, _Watch() as watch:
            work()
    if watch.missed:
        raise RuntimeError(f"not known how much {', '.join(sorted(watch.missed))} moves")
    found = {
        kind: {"calls": 0, "sent_bytes": round(sent), "received_bytes": round(received)}
        for kind, (sent, received) in watch.moved.items()
    }
    for packet, number in calls.get_comm_counts().items():
        if number:
            found[KINDS[packet.__name__]]["calls"] += number
    return found


class Stopwatch:
    """Milliseconds in each part of a step.

    at_once: wait for every collective as soon as it has begun, so that no other work hides it.
    """

    def __init__(self, device: str, at_once: bool = False) -> None:
        self.device, self.at_once = device, at_once
        self.laps: dict[str, list[Any]] = {part: [] for part in PARTS}

    def timed(self, part: str, function: Callable) -> Callable:
        """The function, timed; on CUDA by events in its stream, which disturb nothing."""

        def call(*args, **kwargs):
            began = self._now()
            out = function(*args, **kwargs)
            if self.at_once and isinstance(out, dist.Work):
                out.wait()
            self.laps[part].append((began, self._now()))
            return out

        return call

    def _now(self):
        if self.device != "cuda":
            return meter.clock(self.device)
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def ms(self) -> dict[str, float]:
        """The milliseconds of a step that has ended."""
        return {
            part: sum((self._between(*lap) for lap in laps), start=0.0)
            for part, laps in self.laps.items()
        }

    def _between(self, began, ended) -> float:
        return began.elapsed_time(ended) if self.device == "cuda" else 1e3 * (ended - began)


@contextmanager
def watched(device: str, at_once: bool = False) -> Iterator[Stopwatch]:
    """Time the parts of a step. Waiting for a late process counts as communication."""
    watch = Stopwatch(device, at_once)
    places = [(part, *place) for part, called in PARTS.items() for place in called]
    saved = [(owner, name, getattr(owner, name)) for _, owner, name in places]
    for part, owner, name in places:
        setattr(owner, name, watch.timed(part, getattr(owner, name)))
    try:
        yield watch
    finally:
        for owner, name, function in saved:
            setattr(owner, name, function)

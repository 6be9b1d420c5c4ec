"""The processes of a run: their identity, and agreement between them.

torchrun starts them (RANK, WORLD_SIZE). With one process there is nothing to do.
"""

import atexit
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.settings.errors import UserError

T = TypeVar("T")


def rank() -> int:
    """This process's rank among those that torchrun started."""
    return _number("RANK", 0)


def size() -> int:
    """How many processes torchrun started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, alone: int) -> int:
    """A variable of torchrun's. Ends the process with one line if it is no number."""
    given = os.environ.get(name, str(alone))
    if not given.isdecimal():
        raise SystemExit(f"error: {name}={given}: must be a whole number, as torchrun sets it")
    return int(given)


def tell(line: str) -> None:
    """Print a line for the user, from the leading process only."""
    if rank() == 0:
        print(line, file=sys.stderr, flush=True)


def leave(status: int) -> int:
    """The exit status, as soon as this process may end.

    torchrun ends all processes as soon as one has failed, so the leading process first prints the
    reason. A process with connections exits here at once: their threads can abort it (SIGABRT)
    while the interpreter or the process group shuts down, even after a successful run.
    """
    if status and rank():
        time.sleep(2)
    torch = sys.modules.get("torch")
    if size() > 1 and torch and torch.distributed.is_initialized():
        if not status and "nccl" in torch.distributed.get_backend_config():
            torch.distributed.destroy_process_group()  # required by NCCL
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


@dataclass(frozen=True)
class World:
    """The processes of a run.

    shape: their arrangement: data (parts of the batch, and shards for fsdp2) and tensor (parts of
    the model); mesh: the same as torch's DeviceMesh, if parameters are sharded.
    align_heads: fsdp2 shards Q, K and V weights between heads.
    """

    strategy: str = "none"
    rank: int = 0
    size: int = 1
    shape: tuple[tuple[str, int], ...] = ()
    mesh: Any = None
    align_heads: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0

    @property
    def data_size(self) -> int:
        """The number of processes that share a batch."""
        return dict(self.shape).get("data", 1)

    @property
    def data_rank(self) -> int:
        return self.rank // dict(self.shape).get("tensor", 1)

    def part(self, batch: dict[str, Any]) -> dict[str, Any]:
        """This process's examples of a batch; all examples if the number does not divide evenly.

        In both cases the loss over the batch is the mean of the processes' losses.
        """
        count = len(batch["labels"])
        if self.data_size == 1 or count % self.data_size:
            return batch
        each = count // self.data_size
        mine = slice(self.data_rank * each, (self.data_rank + 1) * each)
        return {key: value[mine] for key, value in batch.items()}

    def facts(self) -> dict[str, Any]:
        """The facts on them in a record; empty without `parallel=…`."""
        if self.strategy == "none":
            return {}
        return {"parallel": self.strategy, "world_size": self.size, "mesh": dict(self.shape)}

    # agreement between processes --------------------------------------------------------------

    def agreed(self, work: Callable[[], T]) -> T:
        """The leading process's result, on all processes; also its UserError or OSError."""
        if self.size == 1:
            return work()
        import torch.distributed as dist

        found: list[Any] = [None, None]
        if self.leads:
            try:
                found[0] = work()
            except (UserError, OSError, KeyboardInterrupt) as error:
                found[1] = error
        dist.broadcast_object_list(found, src=0)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in the order of ranks."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def means(self, *values: float) -> list[float]:
        """Means over the processes, bit-equal on all of them."""
        if self.size == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        both = torch.tensor(values, dtype=torch.float64)  # for Gloo, which exists beside NCCL
        dist.all_reduce(both)
        return (both / self.size).tolist()

    def holders(self, tensor) -> int:
        """The number of processes that hold each number of a tensor."""
        parts = 1
        if hasattr(tensor, "placements"):
            for size, placement in zip(tensor.device_mesh.shape, tensor.placements, strict=True):
                parts *= 1 if placement.is_replicate() else size
        return self.size // parts


ALONE = World()

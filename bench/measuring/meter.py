"""Measures time and memory in the same way everywhere."""

import ctypes
import gc
import math
import os
import statistics
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench.processes.world import World
from optimizers.sharding.regions import local

WARM_UP = 2  # steps at the start of a run that timings ignore


def clock(device: str) -> float:
    """Seconds, read after the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(device: str, work: Callable[[], object], calls: int = 1) -> float:
    """Seconds per call for several calls in a row: on CUDA between two events in its stream, so
    that no call waits for the host."""
    if device != "cuda":
        began = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - began) / calls
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(calls):
        work()
    last.record()
    last.synchronize()
    return 1e-3 * first.elapsed_time(last) / calls


def summary(values: list[float]) -> dict[str, float | int | None]:
    """Median and spread of a list of measurements, in their own unit."""
    if not values:
        return {"median": None, "p10": None, "p90": None, "n": 0}
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "median": statistics.median(ordered),
        "p10": ordered[round(0.1 * last)],
        "p90": ordered[round(0.9 * last)],
        "n": len(ordered),
    }


def timed(values: list[float]) -> list[float]:
    """The values to use: without the first WARM_UP steps if enough values remain."""
    return values[WARM_UP:] if len(values) > 2 * WARM_UP else values


class PeakMemory:
    """The most bytes a run held at once, above those that the process held before it.

    On a CPU: resident memory, whose high-water mark Linux can reset; None elsewhere.
    On CUDA: torch's own count of allocated bytes.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.peak = 0
        self.recent = 0  # the most since `lately` was last called
        release()
        self.before = self._now()
        self.resume()

    def resume(self) -> None:
        """Start or continue counting."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif self.before is not None:
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:  # not Linux, or forbidden by the container
                self.before = None

    def pause(self, ours: int = 0) -> None:
        """Stop counting, because our own measuring follows, not the run.

        ours: bytes held for measuring all the time; they do not count.
        """
        if self.before is not None:
            found = self._mark() - self.before - ours
            self.peak, self.recent = max(self.peak, found), max(self.recent, found)

    def forget(self) -> None:
        """Drop everything counted so far."""
        release()
        self.peak = self.recent = 0
        self.resume()

    def lately(self) -> int | None:
        """The most up to the last pause, since the last call of this method."""
        found, self.recent = self.recent, 0
        return None if self.before is None else found

    def bytes(self) -> int | None:
        self.pause()
        return None if self.before is None else self.peak

    def _now(self) -> int | None:
        if self.device == "cuda":
            return torch.cuda.memory_allocated()
        return _status("VmRSS")

    def _mark(self) -> int:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return _status("VmHWM") or 0


class Held(NamedTuple):
    """Bytes of tensors above those held at the start: the most at once, and at the end."""

    peak: int
    left: int


def held(device: str, work: Callable[[], object]) -> Held:
    """The memory that `work` allocates while it runs.

    On a CPU: the allocation events of torch's profiler, which miss scratch space inside the
    libraries that multiply matrices. On CUDA: torch's own count.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        peak, after = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
        return Held(peak - before, after - before)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # otherwise it reports its start and stop
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True, acc_events=True) as profile:
        work()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    sums = list(accumulate((nbytes for _, nbytes in changes), initial=0))
    return Held(max(sums), sums[-1])


def total(device: str) -> int:
    """The most bytes a process may have: a whole device, or its container's limit."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _limits(own: Path, root: Path) -> list[int]:
    """Linux's limits of a control group and its parents, from files of both versions."""
    found = []
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        inside = root / ("memory" if controllers else "") / path.lstrip("/")
        files = [at / name for at in (inside, *inside.parents) if at.is_relative_to(root)]
        found += [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in found if text.isdigit()]


def available(device: str) -> int:
    """Bytes that can still be allocated on a device."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = _read("/proc/meminfo", "MemAvailable")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if free is None else free


def copies(roles: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    return {role: [p.detach().clone() for p in tensors] for role, tensors in roles.items()}


def update_rms(
    before: dict[str, list[Tensor]], after: dict[str, list[Tensor]], world: World
) -> dict[str, float]:
    """Root mean square of an update by role, including decay. All processes take part."""
    squares = []
    for role, old in before.items():
        pairs = zip(after[role], old, strict=True)
        here = sum(local(p.detach() - q).float().square().sum() for p, q in pairs)
        assert isinstance(here, Tensor)  # a role has at least one tensor
        squares.append(here.item() / world.holders(old[0]))
    means = zip(before.items(), world.means(*squares), strict=True)
    return {
        role: math.sqrt(world.size * mean / sum(q.numel() for q in old))
        for (role, old), mean in means
    }


def norms(roles: dict[str, list[Tensor]], world: World) -> dict[str, float]:
    """The 2-norm of all dense tensors of each role together. All processes take part.

    roles: at least one tensor each.
    """
    squares = []
    for tensors in roles.values():
        each = torch.stack(torch._foreach_norm([local(t.detach()) for t in tensors]))
        holders = torch.tensor([world.holders(t) for t in tensors], device=each.device)
        squares.append((each.double().square() / holders).sum().item())
    return {
        role: math.sqrt(world.size * mean)
        for role, mean in zip(roles, world.means(*squares), strict=True)
    }


def rms(roles: dict[str, list[Tensor]], world: World) -> dict[str, float]:
    """Root mean square of all numbers in a role's tensors. All processes take part."""
    counts = {role: sum(t.numel() for t in tensors) for role, tensors in roles.items()}
    return {role: n / math.sqrt(counts[role]) for role, n in norms(roles, world).items()}


def release() -> None:
    """Return memory that earlier runs of this process freed to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _status(key: str) -> int | None:
    return _read("/proc/self/status", key)


def _read(file: str, key: str) -> int | None:
    """Bytes in one line of such a file; None if it is missing."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)

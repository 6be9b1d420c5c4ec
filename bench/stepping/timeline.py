"""The device's timeline from a profiler: gaps in forward and backward, and hidden steps.

On a GPU it has kernels by stream. On a CPU torch's operators by thread replace them, so that the
code runs anywhere; but a computing processor is never idle, and no claim relies on it.
"""

import os
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import torch

from bench.measuring import meter
from bench.stepping.arms import Arm
from bench.stepping.subject import Subject

REPEATS = 5
EDGES = (10, 100, 1000)  # microseconds between which the gaps are counted


class Work(NamedTuple):
    """One piece of the device's work, start and stop in ms; lane: the stream or thread."""

    start: float
    stop: float
    lane: int


def measure(arms: dict[str, Arm], subject: Subject) -> dict[str, Any]:
    """The gaps of a forward and backward on each batch, launched one by one and as one CUDA graph;
    for each arm that overlaps, the share of its work within forward and backward."""
    gaps = {}
    for units in subject.batches:
        run = partial(subject.run, units)
        launched = [trace(subject.device, run) for _ in range(REPEATS)]
        gaps[units] = {"launched": summary(launched), "graph": graphed(subject, units)}
        subject.clear()
    begin = {label: arm for label, arm in arms.items() if arm.overlap == "backward"}
    hidden = {label: hidden_shares(arm) for label, arm in begin.items()}
    return {
        "batches": [{"units": units, **one} for units, one in gaps.items()],
        "hidden_share": {label: meter.summary(shares) for label, shares in hidden.items()},
    }


def trace(device: str, work: Callable[[], object]) -> list[Work]:
    """The device's work during a call."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds, acc_events=True) as profile:
        work()
        meter.clock(device)  # waits for the device
    asked = torch.autograd.DeviceType.CUDA if device == "cuda" else torch.autograd.DeviceType.CPU
    found = []
    for event in profile.profiler.kineto_results.events():
        there = event.device_type() == asked
        if there and (device == "cuda" or event.name().startswith("aten::")):
            lane = event.device_resource_id() if device == "cuda" else event.start_thread_id()
            start, length = event.start_ns(), event.duration_ns()
            found.append(Work(start / 1e6, (start + length) / 1e6, lane))
    return found


def graphed(subject: Subject, units: int) -> dict[str, Any] | None:
    """The same as one CUDA graph, whose kernels wait for no launch; None if there is none."""
    if subject.device != "cuda":
        return None
    try:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                subject.clear()
                subject.run(units)
        torch.cuda.synchronize()
        subject.clear()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            subject.run(units)
    except Exception as error:  # a model's own code may not fit in a graph
        return {"error": " ".join(str(error).split())[:200]}
    return summary([trace(subject.device, graph.replay) for _ in range(REPEATS)])


def hidden_shares(arm: Arm) -> list[float]:
    """Share of a step started in the backward pass that lies before that pass's end; several."""
    subject, shares = arm.subject, []
    if subject.device != "cuda":  # the profiler does not follow our own threads
        return []
    if arm.routing is None:
        subject.time(min(subject.batches))
        arm.build()
    for _ in range(REPEATS):
        subject.clear()

        def begun() -> None:
            with arm.begun():
                subject.run(max(subject.batches))
            for overlap in arm.overlaps:
                overlap.wait()

        shares.append(hidden_share(trace(subject.device, begun)))
        arm.built.step()
    return shares


# sums over a timeline -----------------------------------------------------------------------------


def union(works: Iterable[Work]) -> list[tuple[float, float]]:
    """When the device did anything: disjoint intervals in order."""
    found: list[tuple[float, float]] = []
    for start, stop, _ in sorted(works):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


def gaps(works: Iterable[Work]) -> list[float]:
    """Milliseconds of each time between works in which the device is idle."""
    busy = union(works)
    return [after[0] - before[1] for before, after in pairwise(busy)]


def summary(traces: list[list[Work]]) -> dict[str, Any]:
    """For one forward and backward: its span, its idle share, and the gaps by length."""
    if not all(traces):  # a container may hide the device's counters
        return {"error": "the profiler saw nothing of what the device did"}
    spans, shares, every = [], [], []
    for works in traces:
        busy, between = union(works), gaps(works)
        spans.append(busy[-1][1] - busy[0][0])
        shares.append(sum(between) / spans[-1])
        every += between
    return {
        "span_ms": meter.summary(spans),
        "idle_share": meter.summary(shares),
        "gaps": histogram(every, len(traces)),
    }


def histogram(lengths: list[float], traces: int) -> list[dict[str, Any]]:
    """Gaps up to each length and above the last (None): their number and their ms per trace."""
    edges = (*EDGES, None)
    place = [sum(1e3 * length > edge for edge in EDGES) for length in lengths]
    found = [{"up_to_us": edge, "count": 0.0, "ms": 0.0} for edge in edges]
    for number, same in groupby(sorted(zip(place, lengths, strict=True)), key=lambda p: p[0]):
        mine = [length for _, length in same]
        found[number] |= {"count": len(mine) / traces, "ms": sum(mine) / traces}
    return found


def hidden_share(works: list[Work]) -> float:
    """For all lanes but the busiest, the share of their work before the busiest lane's end."""
    if not works:
        return 0.0
    total: dict[int, float] = {}
    for start, stop, lane in works:
        total[lane] = total.get(lane, 0.0) + stop - start
    main = max(total, key=total.__getitem__)
    end = max(stop for _, stop, lane in works if lane == main)
    beside = union(one for one in works if one.lane != main)
    whole = sum(stop - start for start, stop in beside)
    inside = sum(max(0.0, min(stop, end) - start) for start, stop in beside)
    return inside / whole if whole else 0.0

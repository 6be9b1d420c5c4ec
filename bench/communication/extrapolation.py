"""EXTRAPOLATION: the cost of Muon's step on machines that were not measured here.

It uses the model of model.py, which was checked against measurements with a few processes, and the
machines and models of conf/communication.yaml. It is never evidence and always marked as
extrapolated.

Weights are fully sharded over all GPUs; Muon takes the hidden matrices, with Q, K and V separate.
Two assumptions overestimate the cost: nothing overlaps with the optimizer's step, although it does,
and with several machines every byte moves at the speed between machines. An all-gather is a ring of
N - 1 latencies; the N - 1 messages of an all-to-all travel together but are handed over one by one.
Memory is ignored: not every model fits on the fewest GPUs.
"""

import functools
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from bench.communication import model as communication
from bench.communication.model import Travelling
from bench.settings.schema import CONF

STEPS = 5  # of Newton-Schulz
ITEMSIZE = 2  # bytes of a number in transit, bf16
LEVELS = (0.01, 0.05)  # shares of a step


@dataclass(frozen=True)
class Point:
    """One model on this many GPUs: milliseconds of forward + backward and, for Muon's step, of the
    communication and of the products on the process with most of them."""

    model: str
    gpus: int
    tokens: int
    strategy: str
    step_ms: float
    communication_ms: float
    orthogonalization_ms: float

    def share(self, part: str) -> float:
        """A part's time relative to forward + backward."""
        return getattr(self, f"{part}_ms") / self.step_ms


def assumptions() -> dict[str, Any]:
    given: Any = OmegaConf.to_container(OmegaConf.load(CONF / "communication.yaml"))
    return given


@functools.cache
def assumed_points() -> list[Point]:
    """The points of conf/communication.yaml, computed once: takes some seconds."""
    return points(assumptions())


def points(given: dict[str, Any]) -> list[Point]:
    """Every model for every number of GPUs, number of tokens and strategy."""
    hardware = given["hardware"]
    found = []
    for name, model in given["models"].items():
        shapes = matrices(model)
        numbers = parameters(model, shapes)
        for gpus in given["gpus"]:
            cut = {shape: even(shape, gpus) for shape in set(shapes)}
            views = [cut[shape] for shape in shapes]
            owners = communication.share_out(views, gpus)
            for strategy in given["strategies"]:
                sent = communicated(views, gpus, strategy, owners, hardware)
                work = multiplied(views, gpus, strategy, owners, hardware)
                for tokens in given["tokens"]:
                    rate = gpus * hardware["peak_flops"] * hardware["model_utilization"]
                    step = 1e3 * 6 * numbers * tokens / rate
                    found.append(Point(name, gpus, tokens, strategy, step, sent, work))
    return found


def matrices(model: dict[str, Any]) -> list[tuple[int, int]]:
    """(fan-out, fan-in) of all hidden matrices: Q, K, V, output, gate, up, down of each layer."""
    width, ffn = model["width"], model["ffn"]
    narrow = width * model["kv_heads"] // model["heads"]
    layer = [(width, width)] * 2 + [(narrow, width)] * 2 + [(ffn, width)] * 2 + [(width, ffn)]
    return layer * model["layers"]


def parameters(model: dict[str, Any], shapes: list[tuple[int, int]]) -> int:
    """Number of all weights except the norms'."""
    table = model["vocabulary"] * model["width"]
    return sum(n * m for n, m in shapes) + table * (1 if model["tied"] else 2)


def even(shape: tuple[int, int], gpus: int) -> Travelling:
    """A matrix sharded along its rows as by fully_shard, with its iteration's FLOPs as work.

    A step takes n^2 m + n^3 + n^2 m multiplications, n <= m: X X^T, its square, and their sum
    times X (https://kellerjordan.github.io/posts/muon/).
    """
    rows, columns = shape
    each = -(-rows // gpus)
    parts = (max(0, min(rows, (r + 1) * each) - r * each) * columns for r in range(gpus))
    n, m = sorted(shape)
    work = 2.0 * STEPS * (2 * n * n * m + n**3)
    return Travelling((shape,), tuple(parts), rows * columns, work)


def communicated(
    views: list[Travelling], gpus: int, strategy: str, owners: list[int], hardware: dict[str, Any]
) -> float:
    """Milliseconds of communication."""
    link = hardware["inside" if gpus <= hardware["machine"] else "between"]
    return communication.milliseconds(
        communication.muon_step(views, gpus, strategy, ITEMSIZE, owners),
        lambda kind: latency(kind, gpus, link),
        lambda kind: link["bytes_per_second"],
    )


def latency(kind: str, gpus: int, link: dict[str, float]) -> float:
    """Seconds of a call that moves almost nothing."""
    if kind == "all_to_all":
        return link["latency_s"] + (gpus - 1) * link["message_s"]
    return (gpus - 1) * link["latency_s"]


def multiplied(
    views: list[Travelling], gpus: int, strategy: str, owners: list[int], hardware: dict[str, Any]
) -> float:
    """Milliseconds of the products on the process with most of them."""
    loads = [0.0] * gpus
    for view, owner in zip(views, owners, strict=True):
        loads[owner] += view.work
    most = sum(loads) if strategy == "gather" else max(loads)
    return 1e3 * most / (hardware["peak_flops"] * hardware["iteration_utilization"])


def reached(found: list[Point], part: str, level: float) -> int | None:
    """The fewest GPUs, for one model, strategy and number of tokens, from which a part's share is
    at least `level` for all larger numbers; None if the largest number does not reach it."""
    first = None
    for point in sorted(found, key=lambda point: -point.gpus):
        if point.share(part) < level:
            break
        first = point.gpus
    return first

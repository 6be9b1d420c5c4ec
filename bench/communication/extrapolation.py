"""EXTRAPOLATION: what Muon's step would cost on machines that nobody measured here.

The model of communication.py, which was checked against measurement at a few processes, with the
machines and models of conf/communication.yaml. Never evidence, always marked as extrapolated.

Weights are fully sharded over all GPUs; hidden matrices are Muon's, Q, K and V apart. Nothing of
the optimizer's step is taken to overlap with anything, although it does, and every byte goes at the
speed between machines where there are several: both rather too dear. An all-gather is a ring of
N - 1 latencies; the messages of an all-to-all are under way together, N - 1 of them handed over one
after another. Memory is not looked at: not every model fits on the fewest GPUs.
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
    """One model on so many GPUs: milliseconds of forward + backward, and of Muon's step what is
    communicated and what is multiplied by the process that does most of it."""

    model: str
    gpus: int
    tokens: int
    strategy: str
    step_ms: float
    communication_ms: float
    orthogonalization_ms: float

    def share(self, part: str) -> float:
        """Of forward + backward."""
        return getattr(self, f"{part}_ms") / self.step_ms


def assumptions() -> dict[str, Any]:
    given: Any = OmegaConf.to_container(OmegaConf.load(CONF / "communication.yaml"))
    return given


@functools.cache
def assumed_points() -> list[Point]:
    """Those of conf/communication.yaml, worked out once: some seconds."""
    return points(assumptions())


def points(given: dict[str, Any]) -> list[Point]:
    """Every model at every number of GPUs, tokens and strategy."""
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
    """All weights but the norms'."""
    table = model["vocabulary"] * model["width"]
    return sum(n * m for n, m in shapes) + table * (1 if model["tied"] else 2)


def even(shape: tuple[int, int], gpus: int) -> Travelling:
    """A matrix cut along its rows as fully_shard cuts it, with the FLOPs of its iteration as work.

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
    """Milliseconds."""
    link = hardware["inside" if gpus <= hardware["machine"] else "between"]
    return communication.milliseconds(
        communication.muon_step(views, gpus, strategy, ITEMSIZE, owners),
        lambda kind: latency(kind, gpus, link),
        lambda kind: link["bytes_per_second"],
    )


def latency(kind: str, gpus: int, link: dict[str, float]) -> float:
    """Seconds of a call that moves next to nothing."""
    if kind == "all_to_all":
        return link["latency_s"] + (gpus - 1) * link["message_s"]
    return (gpus - 1) * link["latency_s"]


def multiplied(
    views: list[Travelling], gpus: int, strategy: str, owners: list[int], hardware: dict[str, Any]
) -> float:
    """Milliseconds of the process that multiplies most."""
    loads = [0.0] * gpus
    for view, owner in zip(views, owners, strict=True):
        loads[owner] += view.work
    most = sum(loads) if strategy == "gather" else max(loads)
    return 1e3 * most / (hardware["peak_flops"] * hardware["iteration_utilization"])


def reached(found: list[Point], part: str, level: float) -> int | None:
    """The fewest GPUs, of one model, strategy and number of tokens, from which on a part takes so
    large a share for all more; None where it does not at the most."""
    first = None
    for point in sorted(found, key=lambda point: -point.gpus):
        if point.share(part) < level:
            break
        first = point.gpus
    return first

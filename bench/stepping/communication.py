"""Additions for a step benchmark of many processes: common turns, and the communication."""

import math
from collections.abc import Callable
from typing import Any

from bench.communication import model
from bench.communication.model import Forecast, Moved
from bench.measuring import meter
from bench.processes.world import World
from bench.settings.errors import UserError
from bench.stepping.arms import Spent

Links = dict[str, dict[str, Any]]  # link.sweep


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def together(work: Callable[[], Any], world: World) -> Callable[[], list[Any]]:
    """The work, started by all processes at once; returns the results of all processes.

    If it raises in one process, all raise UserError, so that they continue alike.
    """

    def on_all() -> list[Any]:
        if world.size == 1:
            return [work()]
        import torch.distributed as dist

        dist.barrier()
        found, error = None, None
        try:
            found = work()
        except Exception as caught:
            error = one_line(caught)
        everyone = world.gathered((found, error))
        errors = [error for _, error in everyone if error]
        if errors:
            raise UserError(errors[0])
        return [found for found, _ in everyone]

    return on_all


def slowest(turn: list[Any]) -> Any:
    """The measurement of the slowest process, which decides when a step is done. By role, or ms."""
    if isinstance(turn[0], Spent):
        return max(turn, key=lambda spent: spent.total).by_role
    return max(turn)


def block(
    facts: list[dict[str, Any]],
    forward_backward: list[dict[str, Any]],
    rounds: list[list[Spent]],
    links: Links,
    gemm: float | None,
) -> dict[str, Any]:
    """`communication` of one optimizer in a record; lists are by process, the leading one first.

    facts: by process; forward_backward: its Subject.traffic; rounds: each process's times by round;
    gemm: FLOP/s of the best matrix product in the optimizer's dtype.

    ms: communication, during which the step stands still; orthogonalization; and
    bare_communication, which is communication if each collective is waited for at once.
    hidden_share: the share of the latter that the step hides behind products; None if there is
    none.
    """
    traffic = [one["traffic"] for one in facts]
    flops = [one["flops"] for one in facts]
    parts = {
        part: over_ranks([[spent.parts[part] for spent in ranks] for ranks in rounds])
        for part in rounds[0][0].parts
    }
    ms: dict[str, dict[str, Any] | None] = {**parts}
    if rounds[0][0].bare:
        bare = [[spent.bare["communication"] for spent in ranks] for ranks in rounds]
        ms["bare_communication"] = over_ranks(bare)
    if any(flops) and not parts["orthogonalization"]["most"]["median"]:
        ms["orthogonalization"] = None  # another project's Muon: its parts are unknown
    return {
        "sharding": traffic[0]["sharding"],
        "forward_backward": {
            "units": forward_backward[0]["units"],
            **compared([one["collectives"] for one in forward_backward],
                       [one["predicted"] for one in forward_backward]),
        },
        "step": {
            **compared([t["collectives"] for t in traffic], [t["predicted"] for t in traffic]),
            "flops_by_rank": flops,
            "state_bytes_by_rank": [one["state_bytes"]["total"] for one in facts],
            "ms": ms,
            "hidden_share": hidden_share(ms),
            "predicted_ms": {
                "communication": predicted_ms([t["predicted"] for t in traffic], links),
                "orthogonalization": 1e3 * max(flops) / gemm if gemm and all(flops) else None,
            },
        },
    }  # fmt: skip


def compared(counted: list[dict], predicted: list[dict]) -> dict[str, Any]:
    return {"collectives_by_rank": counted, "predicted_by_rank": predicted}


def hidden_share(ms: dict[str, dict[str, Any] | None]) -> float | None:
    """From the medians of the process that waits least; below 0 if overlapping only disturbs."""
    waited, bare = ms["communication"], ms.get("bare_communication")
    if not (waited and bare and bare["least"]["median"]):
        return None
    return 1 - waited["least"]["median"] / bare["least"]["median"]


def over_ranks(every: list[list[float]]) -> dict[str, Any]:
    """Milliseconds of a part by round and process: those of the leading process, the least and the
    most. A process that waits for another counts this as communication, so the least is closest to
    the time of the transport itself."""
    return {
        "leading": meter.summary([ranks[0] for ranks in every]),
        "least": meter.summary([min(ranks) for ranks in every]),
        "most": meter.summary([max(ranks) for ranks in every]),
    }


def predicted_ms(by_rank: list[dict[str, dict[str, Any]]], links: Links) -> float | None:
    """The model's prediction, with the measured latency and bandwidth; None without links."""
    if not links:
        return None
    return model.milliseconds(
        forecast(by_rank),
        lambda kind: links[kind]["latency_s"],
        lambda kind: links[kind]["bytes_per_second"] or math.inf,
    )


def forecast(by_rank: list[dict[str, dict[str, Any]]]) -> Forecast:
    """The forecast of what each process moves."""
    nothing = {"calls": 0, "sent_bytes": 0, "received_bytes": 0}
    kinds = dict.fromkeys(kind for one in by_rank for kind in one)
    return {
        kind: Moved(
            max(one.get(kind, nothing)["calls"] for one in by_rank),
            [one.get(kind, nothing)["sent_bytes"] for one in by_rank],
            [one.get(kind, nothing)["received_bytes"] for one in by_rank],
        )
        for kind in kinds
    }

"""The report's part on communication of many processes: measured, predicted, extrapolated."""

from bench.communication import extrapolation

LEAD = (
    "Of a forward and backward pass, and of an optimizer's step alone: calls of collectives, and "
    "the bytes that a process sends to others by the leanest algorithm "
    "(bench/measuring/traffic.py). Counted at torch's operators; predicted from shapes by "
    "bench/communication/model.py. Milliseconds: how long a step stands still for collectives, the "
    "least of any process, as the others also wait, and where it was measured the share that is "
    "hidden, as matrices are orthogonalized while others are under way; beside them, for nothing "
    "hidden, calls x latency + bytes / bandwidth, both measured in the same command, and FLOPs / "
    "the rate of plain products."
)
EXTRAPOLATED = (
    "EXTRAPOLATED, nothing of it measured: the same model with other machines and models. From how "
    "many GPUs on a part of Muon's step takes 1 % or 5 % of forward + backward, at so many tokens "
    "a step over all GPUs; –: at none up to {most:,}. AdamW's step communicates nothing. What is "
    "assumed stands in conf/communication.yaml ({machine}, {mfu:.0%} of their peak in forward + "
    "backward), how in bench/communication/extrapolation.py."
)


def lead_extrapolated() -> str:
    given = extrapolation.assumptions()
    hardware = given["hardware"]
    return EXTRAPOLATED.format(
        most=max(given["gpus"]), machine=hardware["name"], mfu=hardware["model_utilization"]
    )

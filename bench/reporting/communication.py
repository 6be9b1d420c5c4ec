"""The report on what many processes communicate: measured, predicted, and extrapolated."""

from typing import Any

import altair as alt

from bench.communication import extrapolation
from bench.communication.extrapolation import LEVELS, Point
from bench.reporting.cost_charts import ticks_between
from bench.reporting.style import (
    BRIGHT,
    CHOSEN,
    GREY,
    TEXT,
    chart,
    data,
    rounded,
    styles,
    told_apart,
)

SHOWN_TOKENS = 2**22  # of those that are extrapolated, the ones in the picture
LEAD = (
    "Of a forward and backward pass, and of an optimizer's step alone: calls of collectives, and "
    "the bytes that a process sends to others by the leanest algorithm "
    "(bench/measuring/traffic.py). Counted at torch's operators; predicted from shapes by "
    "bench/communication/model.py. Milliseconds: in collectives, the least of any process, as the "
    "others also wait; beside them calls x latency + bytes / bandwidth, both measured in the same "
    "command, and FLOPs / the rate of plain products."
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


def extrapolated_chart(points: list[Point]) -> alt.LayerChart:
    """The share that communication takes, against the number of GPUs."""
    rows: list[dict[str, Any]] = [
        {
            "arm": f"{point.model} {point.strategy}",
            "x": point.gpus,
            "mean": rounded(point.share("communication")),
        }
        for point in points
        if point.tokens == SHOWN_TOKENS
    ]
    names = list(dict.fromkeys(row["arm"] for row in rows))
    scale = alt.Scale(type="log", nice=False)
    gpus = sorted({row["x"] for row in rows})
    ticks = ticks_between([row["mean"] for row in rows])
    x = alt.X("x:Q", title="GPUs", scale=scale, axis=alt.Axis(values=gpus, format=",d"))
    title = "communication of Muon's step / forward + backward, %"
    y = alt.Y("mean:Q", title=title, scale=scale, axis=alt.Axis(values=ticks, format="~%"))
    tooltip = [alt.Tooltip("arm:N"), alt.Tooltip("x:Q", title="GPUs")]
    tooltip.append(alt.Tooltip("mean:Q", title="share", format=".3~%"))
    color = told_apart(styles(names), by=("color",))["color"]
    levels = alt.Chart(data([{"at": level, "text": f"{level:.0%}"} for level in LEVELS]))
    layers = [
        levels.mark_rule(color=GREY, strokeWidth=0.8).encode(alt.Y("at:Q")),
        levels.mark_text(align="left", dx=3, dy=-6, color=TEXT).encode(
            alt.Y("at:Q"), alt.XValue(0), text="text:N"
        ),
        alt.Chart(data(rows))
        .mark_line(strokeDash=[5, 4], point=True)
        .encode(x, y, color, BRIGHT, tooltip=tooltip)
        .add_params(CHOSEN),
    ]
    notes = (
        f"Nothing here was measured: the model of bench/communication/model.py, {SHOWN_TOKENS:,} "
    )
    notes += "tokens a step over all GPUs; what is assumed is in conf/communication.yaml"
    return chart(layers, "Extrapolated: Muon's communication at scale", notes, 360)

"""The report's charts of costs: share of a step, state, overhead, communication."""

import math
from typing import Any

import altair as alt

from bench.communication import extrapolation
from bench.display.palette import GREY, TEXT
from bench.reporting import findings
from bench.reporting.charts import ROW, looks
from bench.reporting.findings import arms
from bench.reporting.style import (
    BRIGHT,
    CHOSEN,
    PALE,
    ROLES,
    chart,
    data,
    interval,
    rounded,
    styles,
    tips,
    told_apart,
)
from bench.studies.comparison import Arm, Comparison
from bench.studies.stats import Estimate
from bench.studies.words import batch

LEVELS = (0.05, 0.02, 0.01)  # levels of overhead that claims name
FOOT = 1e-4  # the lowest overhead on a logarithmic axis
MB = 1e6


def share(one: Comparison) -> alt.LayerChart | None:
    """The optimizer's share of a step's time, the median over runs."""
    rows: list[dict[str, Any]] = [
        {"arm": arm.name, "to": rounded(value), "text": f"{value:.1%}"}
        for arm in arms(one)
        if (value := arm.median("optimizer_share")) is not None
    ]
    if not rows:
        return None
    x = alt.X(
        "to:Q",
        title="optimizer's share of the time of a step, %",
        axis=alt.Axis(format="~%", tickCount=5),
        scale=alt.Scale(domain=[0, rounded(1.2 * max(row["to"] for row in rows)) or 1], nice=False),
    )
    color = told_apart(looks(one, rows), by=("color",), legend=False)["color"]
    base = alt.Chart(data(rows)).encode(x, alt.Y("arm:N", title=None, sort=None))
    layers = [
        base.mark_bar(height={"band": 0.7}).encode(color),
        base.mark_text(align="left", dx=4, color=TEXT).encode(text="text:N"),
    ]
    notes = f"{one.condition}: median over runs, at {batch(one)} a step"
    title = "The optimizer's share of a step"
    return chart(layers, title, notes, len(rows) * ROW, findings.share(one))


def memory(one: Comparison) -> alt.LayerChart | None:
    """The optimizer's state by role, beside the weights; None if all arms keep the same."""
    states = {arm.name: state(arm) for arm in arms(one)}
    if len({tuple(sorted(parts.items())) for parts in states.values()}) < 2:
        return None
    rows: list[dict[str, Any]] = []
    totals: list[dict[str, Any]] = []
    for name, parts in {"weights (fp32)": weights(one), **states}.items():
        end = 0.0
        for role in sorted(parts, key=lambda role: (*ROLES, role).index(role)):
            start, end = end, end + parts[role] / MB
            part = {"from": rounded(start), "to": rounded(end), "MB": rounded(end - start)}
            rows.append({"bar": name, "role": role, "middle": rounded((start + end) / 2), **part})
        totals.append({"bar": name, "to": rounded(end), "text": f"{end:,.3g}"})
    most = max(total["to"] for total in totals)
    x = alt.X(
        "from:Q", title="MB", scale=alt.Scale(domain=[0, rounded(1.2 * most) or 1], nice=False)
    )
    y = alt.Y("bar:N", title=None, sort=None)
    roles = [role for role in ROLES if any(row["role"] == role for row in rows)]
    color = alt.Color(
        "role:N",
        scale=alt.Scale(domain=roles, range=[ROLES[role] for role in roles]),
        legend=alt.Legend(title=None, orient="bottom", columns=4),
    )
    wide = [row for row in rows if row["MB"] > most / 5]
    tooltip = [alt.Tooltip("bar:N"), alt.Tooltip("role:N"), alt.Tooltip("MB:Q", format=",.4~g")]
    layers = [
        alt.Chart(data(rows))
        .mark_bar(height={"band": 0.7}, stroke="white", strokeWidth=0.7)
        .encode(y, x, alt.X2("to:Q"), color, tooltip=tooltip),
        alt.Chart(data(wide), name="inside")  # black on a light bar, in the dark theme too
        .mark_text(size=10, color="black")
        .encode(y, alt.X("middle:Q"), text="role:N"),
        alt.Chart(data(totals))
        .mark_text(align="left", dx=4, color=TEXT)
        .encode(y, alt.X("to:Q"), text="text:N"),
    ]
    notes = f"{one.condition}: what the optimizer keeps between steps, by role of the parameters"
    title, height = "Optimizer state beside the weights", len(totals) * ROW
    return chart(layers, title, notes, height, findings.memory(one))


def state(arm: Arm) -> dict[str, float]:
    """Bytes by role, as counted in the arm's first run."""
    found = arm.runs[0].record.get("optimizer_state_bytes") or {}
    return found.get("by_role") or {}


def weights(one: Comparison) -> dict[str, float]:
    """Bytes of the model's weights by role, from the first run's routing."""
    found: dict[str, float] = {}
    for row in one.arms[0].runs[0].record.get("routing") or []:
        found[row["role"]] = found.get(row["role"], 0) + 4 * math.prod(row["shape"])
    return found


def overhead(step: dict[str, Any]) -> alt.LayerChart | None:
    """Overhead over the batch: solid where measured, dashed from the fit of forward+backward, up to
    ten times the largest measured batch."""
    rows: list[dict[str, Any]] = [
        {
            "arm": name,
            "x": point["units"],
            **interval(Estimate(point["value"], max(point["low"], FOOT), point["high"], n)),
            "measured": point["measured"],
        }
        for name, points in findings.drawn(step).items()
        for n in [step["optimizers"][name]["step_ms"]["n"]]
        for point in points
        if point["value"] > FOOT
    ]
    if not rows:
        return None
    encoded = told_apart(styles(findings.drawn(step)), by=("color", "shape"))
    scale = alt.Scale(type="log", nice=False)
    ticks = [ticks_between([row[key] for row in rows]) for key in ("x", "mean")]
    axes = [
        alt.Axis(values=at, format=form, labelOverlap=True)
        for at, form in zip(ticks, ("~s", "~%"), strict=True)
    ]
    x = alt.X("x:Q", title=f"{step['unit']} a step", scale=scale, axis=axes[0])
    y = alt.Y("mean:Q", title="overhead against AdamW, %", scale=scale, axis=axes[1])
    known = [row for row in rows if row["measured"]]
    joints = {row["arm"]: row for row in known}  # where the dashed line begins
    beyond = [*joints.values(), *(row for row in rows if not row["measured"])]
    color = encoded["color"]
    levels = alt.Chart(data([{"at": level, "text": f"{level:.0%}"} for level in LEVELS]))
    measured = alt.Chart(data(known)).encode(x, y, color, BRIGHT)
    layers = [
        levels.mark_rule(color=GREY, strokeWidth=0.8).encode(alt.Y("at:Q")),
        levels.mark_text(align="right", dx=-3, dy=-6, color=TEXT).encode(
            alt.Y("at:Q"), alt.XValue("width"), text="text:N"
        ),
        alt.Chart(data(rows)).mark_area().encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), color, PALE),
        alt.Chart(data(beyond)).mark_line(strokeDash=[5, 4]).encode(x, y, color, BRIGHT),
        measured.mark_line(strokeWidth=2.2),
        measured.mark_point(filled=True, size=60)
        .encode(encoded["shape"], tooltip=tips(("x:Q", step["unit"])))
        .add_params(CHOSEN),
    ]
    where = step["environment"].get("gpu") if step.get("device") == "cuda" else step.get("device")
    notes = f"{step['model']} on {where or 'an unknown device'}, {step['precision']}; "
    notes += "solid: measured; dashed: extrapolated by the fit of forward + backward; "
    notes += "band: 95 % interval"
    return chart(layers, "Overhead over the batch", notes, 360, findings.overhead(step))


def ticks_between(values: list[float]) -> list[float]:
    """Powers of ten, and three times these, within the range of the values."""
    powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    every = [float(f"{part}e{power}") for power in powers for part in (1, 3)]
    return [tick for tick in every if min(values) <= tick <= max(values)]


def extrapolated_chart(points: list[extrapolation.Point]) -> alt.LayerChart:
    """Communication's share against the number of GPUs."""
    rows: list[dict[str, Any]] = [
        {
            "arm": f"{point.model} {point.strategy}",
            "x": point.gpus,
            "mean": rounded(point.share("communication")),
        }
        for point in points
        if point.tokens == findings.SHOWN_TOKENS
    ]
    names = list(dict.fromkeys(row["arm"] for row in rows))
    scale = alt.Scale(type="log", nice=False)
    gpus = sorted({row["x"] for row in rows})
    ticks = ticks_between([row["mean"] for row in rows])
    x = alt.X(
        "x:Q", title="GPUs", scale=scale, axis=alt.Axis(values=gpus, format=",d", labelOverlap=True)
    )
    title = "communication of Muon's step / forward + backward, %"
    y = alt.Y("mean:Q", title=title, scale=scale, axis=alt.Axis(values=ticks, format="~%"))
    tooltip = [alt.Tooltip("arm:N"), alt.Tooltip("x:Q", title="GPUs")]
    tooltip.append(alt.Tooltip("mean:Q", title="share", format=".3~%"))
    color = told_apart(styles(names), by=("color",))["color"]
    levels = alt.Chart(
        data([{"at": level, "text": f"{level:.0%}"} for level in extrapolation.LEVELS])
    )
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
    notes = "Nothing here was measured: the model of bench/communication/model.py, "
    notes += f"{findings.SHOWN_TOKENS:,} tokens a step over all GPUs; "
    notes += "what is assumed is in conf/communication.yaml"
    title = "Extrapolated: Muon's communication at scale"
    return chart(layers, title, notes, 360, findings.extrapolated(points))

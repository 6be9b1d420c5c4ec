"""The curves of the user's own runs, drawn like those of experiments."""

import statistics
from typing import Any

import altair as alt

from bench.reporting import own_runs
from bench.reporting.charts import HEIGHT, NATS, around, banded
from bench.reporting.own_runs import AGAINST, DRAWN, OwnRuns
from bench.reporting.style import (
    chart,
    interval,
    rounded,
    styles,
    tips,
    told_apart,
)
from bench.studies import curves, groups
from bench.studies.pairs import Bench, Group


def every(own: OwnRuns) -> dict[str, alt.LayerChart]:
    """Curves of the first benches over steps and over seconds, by the picture's path."""
    drawn = {
        own_runs.picture(number, against): loss(bench, against)
        for number, bench in enumerate(own.benches[:DRAWN], 1)
        for against in AGAINST
    }
    return {name: chart for name, chart in drawn.items() if chart}


def loss(bench: Bench, against: str) -> alt.LayerChart | None:
    """Validation loss over "steps" or "seconds": a group's mean, its 95 % interval as a band."""
    rows: list[dict[str, Any]] = [
        {"arm": one.name, "x": rounded(at), "step": step, **interval(estimate)}
        for one in bench.groups
        for step, estimate in curves.curve(one.runs)
        if (at := step if against == "steps" else seconds_at(one, step)) is not None
    ]
    if not rows:
        return None
    least, most = around(rows)
    unit = "images" if bench.record.get("images_per_step") else "tokens"
    label, scale = f"validation loss, {NATS[unit]}", alt.Scale(domain=[least, most], nice=False)
    there = {row["arm"] for row in rows}
    encoded = told_apart(
        {name: s for name, s in styles(g.name for g in bench.groups).items() if name in there}
    )
    title = AGAINST[against]
    x = alt.X("x:Q", title=title, axis=alt.Axis(tickCount=6), scale=alt.Scale(nice=False))
    y = alt.Y("mean:Q", title=label, scale=scale)
    tooltip = tips(("step:Q", "step"), ("x:Q", title))
    layers = banded(rows, (least, most), x, y, encoded, tooltip)
    notes = f"{groups.about(bench)}; mean over seeds; band: 95 % interval"
    title = f"{groups.title(bench)}: validation loss over {against}"
    return chart(layers, title, notes, HEIGHT, own_runs.finding(bench))


def seconds_at(group: Group, step: int) -> float | None:
    """Seconds of training at an evaluated step, the median over runs."""
    lines = (line for run in group.runs for line in run.record["curve"] if line["step"] == step)
    found = [
        line["seconds"] for line in lines if line.get("seconds") is not None and "val_loss" in line
    ]
    return statistics.median(found) if found else None

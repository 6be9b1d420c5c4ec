"""The charts of the report, each described once: interactive in the page, static as SVG or PNG.

Here are the losses and what the arms reach; cost_charts.py has what they cost. All are functions
from comparisons to Altair charts, None where there is nothing to show.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt

from bench.reporting import line_layers
from bench.reporting.style import (
    BRIGHT,
    CHOSEN,
    GREY,
    PALE,
    TEXT,
    WARNING,
    Style,
    chart,
    data,
    interval,
    rounded,
    styles,
    tips,
    told_apart,
)
from bench.studies import comparison, curves, stats
from bench.studies.comparison import Arm, Comparison
from bench.studies.stats import Estimate
from bench.studies.words import unit_of

WIDTH = 640  # pixels of a static chart; in the page a chart is as wide as its place
HEIGHT = 260
ROW = 24  # pixels of a row, of charts with a row an arm
WIDE = 6.5  # pixels of a letter, on average, in a wide font
NATS = {"tokens": "nats per token", "images": "nats per image"}


def static(drawn: alt.LayerChart, path: Path) -> Path:
    """Write a chart as SVG or PNG, by the suffix, whole or not at all; the path."""
    temporary = path.with_name(f".{path.name}")
    try:
        drawn.properties(width=WIDTH).save(temporary, ppi=144)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def loss(one: Comparison, against: str) -> alt.LayerChart | None:
    """Validation loss against "steps", "units" (tokens or images) or "seconds".

    The mean over the finished runs of an arm; the band is its 95 % interval, where there are two
    runs or more. Seconds are steps times the arm's step on the one clock of the comparison.
    """
    unit = unit_of(one)
    seconds = comparison.step_seconds(one)
    factor, title, heading = {
        "steps": (lambda arm: 1, "step", "steps"),
        "units": (lambda arm: arm.median(f"{unit}_per_step"), f"{unit} seen", unit),
        "seconds": (lambda arm: seconds.get(arm.name), "seconds of training", "seconds"),
    }[against]
    rows: list[dict[str, Any]] = [
        {"arm": arm.name, "x": rounded(step * by), "step": step, **interval(estimate)}
        for arm in shown(one)
        if (by := factor(arm))
        for step, estimate in curves.curve(arm.runs)
    ]
    if not rows:
        return None
    axis = alt.Axis(format="~s" if against == "units" else ",~r", tickCount=6)
    encoded = told_apart(looks(one, rows))
    known, least, most = line_layers.drawn(one.lines, *around(rows))
    label, scale = f"validation loss, {NATS[unit]}", alt.Scale(domain=[least, most], nice=False)
    x = alt.X("x:Q", title=title, axis=axis, scale=alt.Scale(nice=False, padding=6))
    y = alt.Y("mean:Q", title=label, scale=scale)
    tooltip = tips(("step:Q", "step"), ("x:Q", title))
    layers = banded(rows, (least, most), x, y, encoded, tooltip)
    layers += line_layers.layers(known, least, most, scale)
    notes = f"{one.condition}: {seeds(one, 'band')}" + "; dashed: trivial models" * bool(known)
    notes += "; seconds: steps × the median step, all on one clock" * (against == "seconds")
    return chart(layers, f"Validation loss against {heading}", notes, HEIGHT)


def banded(
    rows: list[dict[str, Any]],
    ends: tuple[float, float],
    x: alt.X,
    y: alt.Y,
    encoded: dict[str, Any],
    tooltip: list[alt.Tooltip],
) -> list[alt.Chart]:
    """Lines with points through the means of rows, and bands of intervals, cut at the y ends."""
    least, most = ends
    for row in rows:
        if "low" in row:
            row |= {"bottom": max(row["low"], least), "top": min(row["high"], most)}
    base = alt.Chart(data(rows)).encode(x, encoded["color"])
    layers = [
        base.mark_line().encode(y, BRIGHT, encoded["strokeDash"]),
        base.mark_point(filled=True, size=30)
        .encode(y, BRIGHT, encoded["shape"], tooltip=tooltip)
        .add_params(CHOSEN),
    ]
    if any("low" in row for row in rows):
        band = base.transform_filter("isValid(datum.bottom)").mark_area()
        bottom = y.copy()
        bottom.shorthand = "bottom:Q"
        layers.insert(0, band.encode(bottom, alt.Y2("top:Q"), PALE))
    return layers


def around(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The range of the means, and of bands a little more: those of two seeds are very wide."""
    means = [row["mean"] for row in rows]
    ends = means + [row[key] for row in rows for key in ("low", "high") if key in row]
    pad = 0.06 * (max(means) - min(means)) or 0.01
    low, high = max(min(ends), min(means) - 2 * pad), min(max(ends), max(means) + 2 * pad)
    return rounded(low - pad), rounded(high + pad)


def tuning(one: Comparison) -> alt.LayerChart | None:
    """What tuning found: against the number of trials of a search, or at each rate of a grid."""
    return over_trials(one) if one.study.search is not None else over_rates(one)


def over_trials(one: Comparison) -> alt.LayerChart | None:
    """The lowest validation loss that so many trials find, on average over studies, with a band."""
    rows: list[dict[str, Any]] = [
        {"arm": arm.name, "trials": trials, **interval(stats.mean_interval(best))}
        for arm in shown(one)
        if arm.searched is not None and arm.name in one.study.tuned()
        for trials in range(1, arm.searched.trials + 1)
        if all(map(math.isfinite, best := arm.searched.best_of(trials)))
    ]
    if not rows:
        return None
    least, most = around(rows)
    encoded = told_apart(looks(one, rows))
    label, scale = f"validation loss, {NATS[unit_of(one)]}", alt.Scale(domain=[least, most])
    ticks = alt.Axis(values=sorted({row["trials"] for row in rows}), format="d")
    x = alt.X("trials:Q", title="trials", axis=ticks, scale=alt.Scale(nice=False, padding=12))
    y = alt.Y("mean:Q", title=label, scale=scale)
    layers = banded(rows, (least, most), x, y, encoded, tips(("trials:Q", "trials")))
    notes = f"{one.condition}: mean of {len(one.study.tune_seeds)} searches; band: 95 % interval"
    return chart(layers, "Tuning: best of so many trials", notes, HEIGHT)


def over_rates(one: Comparison) -> alt.LayerChart | None:
    """Validation loss at each rate of the grid; the best is ringed, and named at the edge."""
    own = one.study.tuned()
    tuned = [(arm, arm.tuned) for arm in shown(one) if arm.tuned and arm.name in own]
    trials: list[dict[str, Any]] = [
        {"arm": arm.name, "rate": rate, "loss": value}
        for arm, best in tuned
        for rate, value in best.losses.items()
    ]
    rows = [row | {"loss": rounded(row["loss"])} for row in trials if math.isfinite(row["loss"])]
    if not rows:
        return None
    top = max(row["loss"] for row in rows)
    diverged = [row | {"loss": top} for row in trials if not math.isfinite(row["loss"])]
    rings = [
        row | {"note": "edge of the grid" if arm.at_edge else ""}
        for arm, best in tuned
        for row in rows
        if (row["arm"], row["rate"]) == (arm.name, best.rate)
    ]
    x = alt.X(
        "rate:Q",
        title="optimizer.lr_scale, multiples of the base rate",
        scale=alt.Scale(type="log", base=2, padding=42),  # for "edge of the grid"
        axis=alt.Axis(values=sorted({row["rate"] for row in trials}), format="~g"),
    )
    title = f"validation loss, {NATS[unit_of(one)]}"
    y = alt.Y("loss:Q", title=title, scale=alt.Scale(zero=False, nice=False, padding=14))
    encoded = told_apart(looks(one, trials))
    only_color = {"color": encoded["color"]}
    tooltip = [alt.Tooltip("arm:N"), alt.Tooltip("rate:Q"), alt.Tooltip("loss:Q", format=".4~g")]
    curves = alt.Chart(data(rows)).encode(x, y, tooltip=tooltip, **encoded)
    ringed = alt.Chart(data(rings)).encode(x, y)
    layers = [
        curves.mark_line().encode(BRIGHT),
        curves.mark_point(filled=True, size=40).encode(BRIGHT).add_params(CHOSEN),
        ringed.mark_point(size=190, strokeWidth=2, shape="circle").encode(**only_color),
        ringed.mark_text(dy=-16, fontWeight="bold", color=WARNING).encode(text="note:N"),
    ]
    notes = f"{one.condition}: ring: the best rate"
    if diverged:
        lost = alt.Chart(data(diverged)).encode(x, y, tooltip=tooltip[:2], **only_color)
        layers.append(lost.mark_text(text="×", size=20))
        notes += "; ×: diverged, drawn at the top"
    return chart(layers, "Tuning: validation loss against rate", notes, HEIGHT)


def differences(comparisons: list[Comparison]) -> alt.LayerChart | None:
    """Paired differences to the baseline with 95 % intervals; the margin is a grey band.

    A row an arm, under all conditions. A/A arms are grey: what they differ from the arm they
    repeat is noise. None where no pair has two seeds: a number without an interval shows nothing.
    """
    rows: list[dict[str, Any]] = [
        {"arm": arm, "row": name if len(comparisons) == 1 else f"{one.condition}: {name}"}
        | interval(estimate)
        for one in comparisons
        for arm, name, estimate in _differences(one)
    ]
    if not any("low" in row for row in rows):
        return None
    study = comparisons[0].study
    ends = [0, *(row[key] for row in rows for key in ("mean", "low", "high") if key in row)]
    ends += [-study.margin, study.margin] if study.margin else []
    pad = 0.04 * (max(ends) - min(ends)) or 0.01
    scale = alt.Scale(domain=[rounded(min(ends) - pad), rounded(max(ends) + pad)], nice=False)
    title = f"test loss minus {study.baseline}'s, nats"
    dots = intervals(rows, alt.X("mean:Q", title=title, scale=scale), looks(comparisons[0], rows))
    zero = alt.Chart(data([{"at": 0}])).mark_rule(color=TEXT).encode(alt.X("at:Q"))
    notes = "left of zero is better; line: 95 % interval, paired by seed"
    layers = [zero, *dots]
    if study.margin:
        edges = alt.Chart(data([{"from": -study.margin, "to": study.margin}]))
        layers.insert(
            0, edges.mark_rect(color=GREY, opacity=0.22).encode(alt.X("from:Q"), alt.X2("to:Q"))
        )
        notes += f"; grey: counts as equal (±{study.margin:g})"
    return chart(layers, f"Test loss against {study.baseline}", notes, len(rows) * ROW)


def _differences(one: Comparison) -> Iterator[tuple[str, str, Estimate]]:
    """Arm, its row's name, and the difference."""
    for arm in one.arms:
        if arm.difference:
            yield arm.name, arm.name, arm.difference.estimate
    for again, source in one.study.again().items():
        pair = [found for name in (again, source) if (found := one.arm(name))]
        losses = [curves.by_seed(arm.runs, "test_loss") for arm in pair]
        if len(losses) == 2 and len(values := stats.paired(*losses)):
            yield again, f"{source} again (A/A)", stats.mean_interval(values)


def accuracy(one: Comparison) -> alt.LayerChart | None:
    """The accuracy on the test part, where the records have one."""
    rows = [
        {"arm": arm.name, "row": arm.name, **interval(arm.test_accuracy)}
        for arm in shown(one)
        if arm.test_accuracy
    ]
    if not rows:
        return None
    axis, scale = alt.Axis(format=".1%", tickCount=5), alt.Scale(zero=False, padding=14)
    x = alt.X("mean:Q", title="accuracy on the test part, % of images", axis=axis, scale=scale)
    notes = f"{one.condition}: {seeds(one, 'line')}"
    return chart(intervals(rows, x, looks(one, rows)), "Accuracy", notes, len(rows) * ROW)


def intervals(rows: list[dict[str, Any]], x: alt.X, style: dict[str, Style]) -> list[alt.Chart]:
    """A point and a line a row."""
    encoded = told_apart(style, by=("color", "shape"), legend=False)
    # A viewer's font may be wider than the one with which a static picture is laid out.
    room = min(200, WIDE * max(len(row["row"]) for row in rows))
    y = alt.Y("row:N", title=None, sort=None, axis=alt.Axis(labelLimit=200, minExtent=room))
    base = alt.Chart(data(rows)).encode(y, color=encoded["color"])
    points = base.mark_point(filled=True, size=75, opacity=1)
    marks = [points.encode(x, encoded["shape"], tooltip=tips())]
    if any("low" in row for row in rows):
        lines = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2.5)
        marks.insert(0, lines.encode(alt.X("low:Q"), alt.X2("high:Q")))
    return marks


def shown(one: Comparison) -> list[Arm]:
    """All arms but the A/A ones."""
    return [arm for arm in one.arms if not arm.noise]


def looks(one: Comparison, rows: list[dict[str, Any]]) -> dict[str, Style]:
    """Of the arms in rows, by their place in the study: a missing arm changes no other's."""
    there = {row["arm"] for row in rows}
    every = styles(one.study.arms, one.study.again())
    return {name: style for name, style in every.items() if name in there}


def seeds(one: Comparison, mark: str) -> str:
    """What a point is the mean of, and which mark is its interval."""
    found = sorted({arm.test_loss.n for arm in shown(one) if arm.test_loss.n})
    if found[-1] < 2:
        return "one run an arm"
    number = "–".join(map(str, dict.fromkeys((found[0], found[-1]))))
    return f"mean of {number} seeds; {mark}: 95 % interval"

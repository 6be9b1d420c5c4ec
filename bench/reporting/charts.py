"""The charts of losses, each defined once: interactive in the page, static as SVG or PNG.

All are functions from comparisons to Altair charts; None if there is nothing to show.
"""

from pathlib import Path
from typing import Any

import altair as alt

from bench.display.palette import TEXT
from bench.reporting import findings, line_layers
from bench.reporting.findings import arms
from bench.reporting.style import (
    BRIGHT,
    CHOSEN,
    PALE,
    Style,
    chart,
    data,
    interval,
    rounded,
    styles,
    tips,
    told_apart,
)
from bench.studies import comparison, curves
from bench.studies.comparison import Comparison
from bench.studies.words import unit_of

WIDTH = 640  # pixels of a static chart; in the page a chart fills its column
HEIGHT = 260
ROW = 24  # pixels per row, in charts with one row per arm
WIDE = 7.5  # average pixels per letter in a wide font
NATS = {"tokens": "nats per token", "images": "nats per image"}


def static(drawn: alt.LayerChart, path: Path) -> Path:
    """Write a chart as SVG or PNG, by the suffix, whole or not at all; returns the path."""
    temporary = path.with_name(f".{path.name}")
    try:
        drawn.properties(width=WIDTH, background="white").save(temporary, ppi=144)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def curve(one: Comparison) -> alt.LayerChart | None:
    """For optimizers their losses, over seconds if the runs have equal time; for variants of Muon,
    whose curves overlap, the differences from the baseline."""
    if findings.of_variants(one):
        return gap(one)
    return loss(one, "seconds" if one.study.equal_time_of else "steps")


def loss(one: Comparison, against: str) -> alt.LayerChart | None:
    """Validation loss against "steps" or "seconds".

    The line is the mean over an arm's finished runs; the band is its 95 % interval, if there are
    two runs or more. Seconds are steps times the arm's step time on the comparison's common clock.
    """
    unit, seconds = unit_of(one), comparison.step_seconds(one)
    title = {"steps": "step", "seconds": "seconds of training"}[against]
    rows: list[dict[str, Any]] = [
        {"arm": arm.name, "x": rounded(step * by), "step": step, **interval(estimate)}
        for arm in arms(one)
        if (by := 1 if against == "steps" else seconds.get(arm.name))
        for step, estimate in curves.curve(arm.runs)
    ]
    if not rows:
        return None
    encoded = told_apart(looks(one, rows))
    known, least, most = line_layers.drawn(one.lines, *around(rows))
    label, scale = f"validation loss, {NATS[unit]}", alt.Scale(domain=[least, most], nice=False)
    x = along(title)
    y = alt.Y("mean:Q", title=label, scale=scale)
    layers = banded(rows, (least, most), x, y, encoded, tips(("step:Q", "step"), ("x:Q", title)))
    layers += line_layers.layers(known, least, most, scale)
    notes = f"{one.condition}: {seeds(one, 'band')}" + "; dashed: trivial models" * bool(known)
    notes += "; seconds: steps × the median step, all on one clock" * (against == "seconds")
    return chart(
        layers, f"Validation loss over {against}", notes, HEIGHT, findings.loss(one, against)
    )


def gap(one: Comparison) -> alt.LayerChart | None:
    """Validation loss minus the baseline's over steps, paired by seed, with its 95 % interval."""
    rows: list[dict[str, Any]] = [
        {"arm": name, "x": step, "step": step, **interval(estimate)}
        for name, found in findings.gaps(one).items()
        for step, estimate in found
    ]
    if not rows:
        return None
    base, (least, most) = one.study.baseline, around([*rows, {"mean": 0}])
    y = alt.Y(
        "mean:Q",
        title=f"validation loss minus {base}'s, nats",
        scale=alt.Scale(domain=[least, most], nice=False),
    )
    layers = banded(
        *(rows, (least, most), along("step"), y, told_apart(looks(one, rows))),
        tips(("step:Q", "step")),
    )
    zero = alt.Chart(data([{"at": 0}])).mark_rule(color=TEXT).encode(alt.Y("at:Q"))
    notes = f"{one.condition}: below zero is better; mean of pairs of seeds; band: 95 % interval"
    title = f"Validation loss against {base}, over steps"
    return chart([zero, *layers], title, notes, HEIGHT, findings.gap(one))


def along(title: str) -> alt.X:
    """The axis for steps or seconds."""
    axis = alt.Axis(format=",~r", tickCount=6, labelOverlap=True)
    return alt.X("x:Q", title=title, axis=axis, scale=alt.Scale(nice=False, padding=6))


def banded(
    rows: list[dict[str, Any]],
    ends: tuple[float, float],
    x: alt.X,
    y: alt.Y,
    encoded: dict[str, Any],
    tooltip: list[alt.Tooltip],
) -> list[alt.Chart]:
    """Lines with points through the means of rows, and bands of intervals, cut at the y limits."""
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
    """The range of the means and a little of the bands: those of two seeds are very wide."""
    means = [row["mean"] for row in rows]
    ends = means + [row[key] for row in rows for key in ("low", "high") if key in row]
    pad = 0.06 * (max(means) - min(means)) or 0.01
    low, high = max(min(ends), min(means) - 2 * pad), min(max(ends), max(means) + 2 * pad)
    return rounded(low - pad), rounded(high + pad)


def accuracy(one: Comparison) -> alt.LayerChart | None:
    """The accuracy on the test part, if the records have it."""
    rows = [
        {"arm": arm.name, "row": arm.name, **interval(arm.test_accuracy)}
        for arm in arms(one)
        if arm.test_accuracy
    ]
    if not rows:
        return None
    axis, scale = alt.Axis(format=".1%", tickCount=5), alt.Scale(zero=False, padding=14)
    x = alt.X("mean:Q", title="accuracy on the test part, % of images", axis=axis, scale=scale)
    notes = f"{one.condition}: {seeds(one, 'line')}"
    layers = intervals(rows, x, looks(one, rows))
    return chart(layers, "Accuracy", notes, len(rows) * ROW, findings.accuracy(one))


def intervals(rows: list[dict[str, Any]], x: alt.X, style: dict[str, Style]) -> list[alt.Chart]:
    """One point and one line per row."""
    encoded = told_apart(style, by=("color", "shape"), legend=False)
    # A viewer's font may be wider than the one used for the layout of a static picture.
    room = min(200, WIDE * max(len(row["row"]) for row in rows))
    y = alt.Y("row:N", title=None, sort=None, axis=alt.Axis(labelLimit=200, minExtent=room))
    base = alt.Chart(data(rows)).encode(y, color=encoded["color"])
    points = base.mark_point(filled=True, size=75, opacity=1)
    marks = [points.encode(x, encoded["shape"], tooltip=tips())]
    if any("low" in row for row in rows):
        lines = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2.5)
        marks.insert(0, lines.encode(alt.X("low:Q"), alt.X2("high:Q")))
    return marks


def looks(one: Comparison, rows: list[dict[str, Any]]) -> dict[str, Style]:
    """Styles of the arms in rows, by their place in the study: a missing arm changes no other's."""
    there = {row["arm"] for row in rows}
    every = styles(one.study.arms, one.study.again())
    return {name: style for name, style in every.items() if name in there}


def seeds(one: Comparison, mark: str) -> str:
    """What a point is the mean of, and which mark shows its interval."""
    found = sorted({arm.test_loss.n for arm in arms(one) if arm.test_loss.n})
    if found[-1] < 2:
        return "one run an arm"
    number = "–".join(map(str, dict.fromkeys((found[0], found[-1]))))
    return f"mean of {number} seeds; {mark}: 95 % interval"

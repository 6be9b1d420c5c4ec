"""Dashed reference lines in a loss chart, with their names."""

from typing import Any

import altair as alt

from bench.display.palette import GREY
from bench.reporting.style import data, rounded
from bench.studies.lines import Lines

BELOW = 0.35  # maximum distance of a line below the curves, relative to the chart's height
CLOSE = 0.06  # relative to the height: closer lines share a label


def drawn(
    known: Lines | None, least: float, most: float
) -> tuple[list[dict[str, Any]], float, float]:
    """The lines that fit in a chart from `least` to `most`, by falling validation loss, and the
    chart's limits including them.

    Lines above the curves are left out, as the uniform one nearly always is.
    """
    end = least - BELOW * (most - least)
    every = known.every if known else []
    rows = [{"line": one["name"], "loss": rounded(one["validation_loss"])} for one in every]
    rows = [row for row in rows if end <= row["loss"] <= most]
    lowest = min([row["loss"] for row in rows], default=least)
    if lowest < least:
        least = rounded(lowest - 0.03 * (most - lowest))
    return sorted(rows, key=lambda row: -row["loss"]), least, most


def layers(rows: list[dict[str, Any]], least: float, most: float, y: alt.Scale) -> list[alt.Chart]:
    """One rule per line, and the names at the left, where the curves are high."""
    if not rows:
        return []
    labels: list[dict[str, Any]] = []
    for row in rows:
        if labels and labels[-1]["loss"] - row["loss"] < CLOSE * (most - least):
            labels[-1]["line"] += f", {row['line']}"
        else:
            labels.append(dict(row))
    at = alt.Y("loss:Q", scale=y)
    tooltip = [alt.Tooltip("line:N"), alt.Tooltip("loss:Q", title="mean", format=".4~g")]
    rules = alt.Chart(data(rows)).mark_rule(color=GREY, strokeDash=[6, 4], strokeWidth=1.2)
    names = alt.Chart(data(labels)).mark_text(color=GREY, align="left", dx=4, dy=-6, fontSize=11)
    return [
        rules.encode(at, tooltip=tooltip),
        names.encode(at, alt.XValue(0), text="line:N"),
    ]

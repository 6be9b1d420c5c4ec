"""Reference lines in a chart of the loss: dashed, with their names."""

from typing import Any

import altair as alt

from bench.display.palette import GREY
from bench.reporting.style import data, rounded
from bench.studies.lines import Lines

BELOW = 0.35  # of a chart's height: how far below its curves a line is drawn
CLOSE = 0.06  # of the height: lines closer than that share a label


def drawn(
    known: Lines | None, least: float, most: float
) -> tuple[list[dict[str, Any]], float, float]:
    """The lines that a chart from `least` to `most` has room for, by validation loss, falling, and
    its ends with them in it.

    Those above its curves are left out, as the uniform one nearly always is.
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
    """A rule each, and the names at the left, where the curves are high."""
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

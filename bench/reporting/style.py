"""The look of the report's charts: colours, dashes and shapes, and what all charts share."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, cast

import altair as alt

from bench.display import palette
from bench.display.palette import GREY
from bench.studies.stats import Estimate

LINE = 54  # characters per line of a subtitle: fits a phone


@dataclass(frozen=True)
class Style:
    """dash: of a line, pixels on and off; shape: of a point, named as in Vega."""

    color: str
    dash: tuple[int, ...]
    shape: str


# Each optimizer has its own dash and shape besides its colour.
OPTIMIZERS = {
    "adamw": ((1, 0), "circle"),
    "hybrid": ((1, 0), "square"),
    "muon": ((8, 3), "triangle-up"),
    "torch_muon": ((2, 3), "diamond"),
    "adam": ((5, 3), "cross"),
}
DASHES = ((1, 0), (8, 3), (2, 3), (10, 3, 2, 3), (5, 3))
SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "cross", "triangle-down"),
    *("triangle-right", "triangle-left"),
)
# For bars with names in them: Tol's light scheme.
ROLES = {
    "hidden": "#77AADD",
    "conv": "#99DDFF",
    "embedding": "#EEDD88",
    "head": "#EE8866",
    "position": "#44BB99",
    "vector": "#BBCC33",
}


def styles(names: Iterable[str], again: Iterable[str] = ()) -> dict[str, Style]:
    """One style per name, with the colours of bench/display/palette.py; again: A/A arms."""
    every = list(names)
    found: dict[str, Style] = {}
    variants: Counter[str] = Counter()
    for number, (name, color) in enumerate(palette.colors(every, again).items()):
        optimizer = name.split(" ")[0]
        if name in again:
            found[name] = Style(color, (3, 3), "circle")
        elif optimizer in OPTIMIZERS:
            dash, own = OPTIMIZERS[optimizer]
            count = variants[optimizer]
            shape = SHAPES[::-1][(count - 1) % len(SHAPES)] if count else own
            found[name] = Style(color, dash, shape)
            variants[optimizer] += 1
        else:
            shape = SHAPES[number % len(SHAPES)]
            found[name] = Style(color, DASHES[number % len(DASHES)], shape)
    return found


def told_apart(
    style: Mapping[str, Style],
    by: Iterable[str] = ("color", "strokeDash", "shape"),
    legend: bool = True,
) -> dict[str, Any]:
    """Encodings of the field "arm"; their legends merge into one."""
    names = list(style)
    columns = max(1, min(4, 44 // (4 + max(map(len, names), default=1))))
    box = alt.Legend(title=None, orient="bottom", columns=columns, labelLimit=290)
    kinds: dict[str, tuple[type[alt.Color | alt.StrokeDash | alt.Shape], list]] = {
        "color": (alt.Color, [one.color for one in style.values()]),
        "strokeDash": (alt.StrokeDash, [list(one.dash) for one in style.values()]),
        "shape": (alt.Shape, [one.shape for one in style.values()]),
    }
    return {
        key: kinds[key][0](
            "arm:N",
            sort=names,
            scale=alt.Scale(domain=names, range=kinds[key][1]),
            legend=box if legend else None,
        )
        for key in by
    }


# A click on a name in the legend highlights its arm.
CHOSEN = alt.selection_point(name="chosen", fields=["arm"], bind="legend")
BRIGHT = alt.OpacityValue(0.12, condition={"param": "chosen", "value": 1})
PALE = alt.OpacityValue(0.02, condition={"param": "chosen", "value": 0.15})
CONFIG = alt.Config(
    font="Helvetica, Arial, sans-serif",
    background="transparent",
    padding=4,
    view=alt.ViewConfig(stroke=None),
    axis=alt.AxisConfig(
        gridColor="#e4e4e4", domainColor=GREY, tickColor=GREY, labelFontSize=11, titleFontSize=11
    ),
    legend=alt.LegendConfig(
        labelFontSize=11, symbolSize=80, symbolOpacity=1, symbolStrokeWidth=0, columnPadding=14
    ),
    title=alt.TitleConfig(
        anchor="start",
        frame="bounds",
        fontSize=14,
        offset=10,
        subtitleFontSize=11,
        subtitleColor="#555555",
    ),
)


def chart(
    layers: list[alt.Chart], title: str, notes: str, height: Any, finding: str
) -> alt.LayerChart:
    """One chart of layers: a title, notes below it in lines that fit, and the width of its column.

    finding: a sentence on what it shows, used as the caption and by screen readers.
    """
    drawn = alt.layer(
        *layers,
        title=alt.Title(title, subtitle=wrap(notes, LINE)),
        description=finding,
        width="container",
        height=height,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        config=CONFIG,
    )
    return cast(alt.LayerChart, drawn)  # no layer has facets


def data(rows: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=rows)


def interval(estimate: Estimate) -> dict[str, float]:
    """As a row of data, with finite numbers only because JSON has no others."""
    found = {"mean": rounded(estimate.mean), "n": estimate.n}
    if estimate.n > 1:
        found |= {"low": rounded(estimate.low), "high": rounded(estimate.high)}
    return found


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


def tips(*place: tuple[str, str]) -> list[alt.Tooltip]:
    """The tooltip: the arm, the position (field and title), and the number with its interval."""
    numbers = (("mean", "mean"), ("low", "from"), ("high", "to"))
    return [
        alt.Tooltip("arm:N"),
        *(alt.Tooltip(field, title=title) for field, title in place),
        *(alt.Tooltip(f"{key}:Q", title=title, format=".4~g") for key, title in numbers),
        alt.Tooltip("n:Q"),
    ]

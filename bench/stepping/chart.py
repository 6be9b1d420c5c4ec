"""The picture of a step benchmark: overhead by batch, on logarithmic axes."""

from itertools import pairwise
from math import log
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bench.display import charts, palette
from bench.display.numbers import short
from bench.measuring.overhead import SHOWN

GREY = "#6f6f6f"
LEVELS = (0.05, 0.02, 0.01)
TICKS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
FOOT = 1e-4  # the lowest overhead shown
APART = 0.05  # height of a label's line, relative to the picture
WRAP = 32  # characters per line: names with overrides are long

Label = tuple[tuple[float, float], str, str]  # end of its line, text, colour


def write(record: dict[str, Any], path: Path) -> Path:
    """Draw a record of results/steps as .svg or .png, by the file name; returns the path."""
    charts.style()
    charts.save(draw(record), path)
    return path


def draw(record: dict[str, Any]) -> Figure:
    """Solid where forward+backward was measured, dashed where its fit is extrapolated, to ten times
    the largest measured batch.

    Optimizers that failed or differ from the reference only within the noise are left out.
    """
    figure = Figure(figsize=(8.4, 4.8))
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    farthest = SHOWN * max(record["batches"]) * record["units_per_example"]
    shown = {
        label: one | {"overhead": [p for p in one["overhead"] if p["units"] <= farthest]}
        for label, one in record["optimizers"].items()
        if not one["error"] and not one["difference_ms"]["within_noise"]
    }
    labels: list[Label] = []
    for (label, one), color in zip(shown.items(), palette.colors(shown).values(), strict=True):
        end = line(axes, one["overhead"], color)
        at = one["units_at"]["0.01"]["units"]
        if end is not None:
            text = f"{label}: 1 % at {short(at)}" if at else label
            labels.append((end, text, palette.mixed(color, 0, 0.3)))  # darker, to be readable
    labels += theory(axes, shown, record["rows_per_unit"])
    for level in LEVELS:
        axes.axhline(level, color=GREY, linewidth=0.8, alpha=0.5, zorder=1)
    if not labels:
        text = "none costs more than AdamW beyond the noise"
        axes.annotate(text, (0.1, 0.5), xycoords="axes fraction")
        axes.set(ylim=(FOOT, 1), xlim=(1, 1e6))
    dress(axes, record)
    write_labels(axes, labels)
    return figure


def line(axes: Axes, points: list[dict[str, Any]], color: str) -> tuple[float, float] | None:
    """One optimizer's curve with its interval; returns its end, or None if nothing is visible."""
    known = [p for p in points if None not in (p["value"], p["low"], p["high"])]
    points = [p for p in known if p["value"] > FOOT]
    measured = [p for p in points if p["measured"]]
    beyond = [*measured[-1:], *(p for p in points if not p["measured"])]
    for part, style in ((measured, "o-"), (beyond, "--")):
        units, values = [p["units"] for p in part], [p["value"] for p in part]
        axes.plot(units, values, style, color=color, markersize=5)
    units = [p["units"] for p in points]
    low, high = ([max(p[key], FOOT) for p in points] for key in ("low", "high"))
    axes.fill_between(units, low, high, color=color, alpha=0.15, linewidth=0)
    return (points[-1]["units"], points[-1]["value"]) if points else None


def theory(axes: Axes, shown: dict[str, dict[str, Any]], rows: float | None) -> list[Label]:
    """The bound T m / B on FLOPs, once per T and m; returns its labels. rows: tokens per unit."""
    bounds = {
        (one["theory"]["iterations"], one["theory"]["dimension"]): one["overhead"]
        for one in shown.values()
        if one["theory"]
    }
    labels = []
    for (iterations, dimension), points in bounds.items():
        points = [p for p in points if p["theory"] is not None and p["theory"] > FOOT]
        if points:
            units, values = [p["units"] for p in points], [p["theory"] for p in points]
            axes.plot(units, values, ":", color=GREY, linewidth=1.5)
            tokens = "B" if rows == 1 else f"({rows:g}·B)"
            text = f"theory, FLOPs: {iterations}·{dimension} / {tokens}"
            labels.append(((units[-1], values[-1]), text, GREY))
    return labels


def write_labels(axes: Axes, labels: list[Label]) -> None:
    """Names to the right of their lines' ends, pushed apart if they would overlap."""
    low, high = axes.get_ylim()
    labels = sorted(labels, key=lambda label: label[0][1])
    heights = [log(y / low) / log(high / low) for (_, y), _, _ in labels]
    texts = [fill(text, WRAP) for _, text, _ in labels]
    for below, above in pairwise(range(len(heights))):
        lines = 1 + (texts[below].count("\n") + texts[above].count("\n")) / 2
        heights[above] = max(heights[above], heights[below] + lines * APART)
    for (_, _, color), text, height in zip(labels, texts, heights, strict=True):
        axes.annotate(text, (1.01, height), xycoords="axes fraction", va="center", color=color)


def dress(axes: Axes, record: dict[str, Any]) -> None:
    """Draw the title, the axes and their ticks."""
    where = record["environment"]["gpu"] or f"CPU with {record['environment']['threads']} threads"
    if "parallel" in record:
        where += f", {record['parallel']} over {record['world_size']} processes"
    axes.set_title(f"{record['model']}, {where}, {record['precision']}", loc="left", pad=18)
    axes.annotate(
        "solid: measured; dashed: forward+backward by its fit; band: 95 % interval",
        (0, 1.03), xycoords="axes fraction", fontsize=8, color=GREY,
    )  # fmt: skip
    axes.set_xlabel(f"{record['unit']} per step, B")
    axes.set_ylabel("overhead against AdamW")
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in TICKS if low < tick < high])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))

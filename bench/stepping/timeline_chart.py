"""The picture of a timeline: busy time in forward and backward, and gaps by length."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.display import charts
from bench.stepping.tables import up_to
from bench.stepping.timeline import EDGES

BUSY = "#c8c8c8"
COLORS = ("#56B4E9", "#E69F00", "#D55E00", "#000000")  # Okabe and Ito, the longest gaps darkest


def write(record: dict[str, Any], path: Path) -> Path:
    """Draw a record's timeline as .svg or .png, by the file name; returns the path."""
    charts.style()
    charts.save(draw(record), path)
    return path


def draw(record: dict[str, Any]) -> Figure:
    """One bar per batch, launched one by one and as one graph, in shares of its span."""
    bars = [
        (f"{batch['units']:,} {record['unit']}, {how}", batch[how])
        for batch in reversed(record["timeline"]["batches"])
        for how in ("graph", "launched")
        if batch[how] and "error" not in batch[how]
    ]
    figure = Figure(figsize=(8.4, 1.2 + 0.35 * len(bars)))
    axes = figure.subplots()
    names = [name for name, _ in bars]
    left = [1 - found["idle_share"]["median"] for _, found in bars]
    axes.barh(names, left, color=BUSY, label="busy")
    for number, (color, edge) in enumerate(zip(COLORS, (*EDGES, None), strict=True)):
        shares = []
        for _, found in bars:
            total = sum(gap["ms"] for gap in found["gaps"]) or 1.0
            own = found["gaps"][number]["ms"] / total
            shares.append(own * found["idle_share"]["median"])
        axes.barh(names, shares, left=left, color=color, label=f"gaps {up_to(edge)}")
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set(xlim=(0, 1), xlabel="share of a forward and backward")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.grid(visible=False, axis="y")
    where = record["environment"]["gpu"] or "CPU, between torch's operators"
    axes.set_title(f"{record['model']}, {where}: what the device does", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure

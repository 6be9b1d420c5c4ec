"""The picture of the best single triples by shape."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter, ScalarFormatter

from bench.display import charts
from bench.laboratory.charts import below, colour

LINES = {"keller": ":", "bounded": "--", "single": "-"}


def draw(path: Path, fits: list[dict[str, Any]]) -> None:
    """One panel per number of steps: error against rows, a colour per ratio, a line per set."""
    charts.style()
    every = sorted({one["steps"] for one in fits})
    figure, axes = plt.subplots(1, len(every), figsize=(4.6 * len(every), 3.8), squeeze=False)
    ratios = sorted({ratio(one) for one in fits})
    for ax, steps in zip(axes[0], every, strict=True):
        for i, which in enumerate(ratios):
            mine = [one for one in fits if one["steps"] == steps and ratio(one) == which]
            rows = [one["shape"][0] for one in mine]
            for name, style in LINES.items():
                errors = [one[name]["mse"] for one in mine]
                ax.plot(rows, errors, style, color=colour(i), label=f"1:{which} {name}")
        ax.set(xscale="log", yscale="log", xlabel="rows", ylabel="mean (s−1)²")
        ax.set(title=f"{steps} steps", xticks=sorted({one["shape"][0] for one in fits}))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    below(figure, axes[0, 0])
    figure.suptitle(
        "Gaussian matrices: the best triple (single), the best that keeps all inputs of [0, 1] "
        "below 1.5 (bounded), keller"
    )
    charts.save(figure, path)


def ratio(one: dict[str, Any]) -> int:
    n, m = one["shape"]
    return m // n

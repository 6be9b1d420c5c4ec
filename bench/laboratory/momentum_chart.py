"""The picture of momenta's singular values."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from bench.display import charts
from bench.laboratory.charts import below


def draw(path: Path, whole: dict[str, Any]) -> None:
    """One row per run, one panel per kind of layer, one line per step; Gaussian matrices dashed."""
    charts.style()
    names = list(dict.fromkeys(one["run"] for one in whole["groups"]))
    columns = list(dict.fromkeys(one["kind"] for one in whole["groups"]))
    figure, axes = plt.subplots(
        *(len(names), len(columns)),
        figsize=(2.3 * len(columns), 2.3 * len(names) + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, name in zip(axes, names, strict=True):
        for ax, kind in zip(row, columns, strict=True):
            mine = [g for g in whole["groups"] if (g["run"], g["kind"]) == (name, kind)]
            panel(ax, mine, whole)
            ax.set_title(f"{name}\n{kind}" if mine else "", fontsize=8)
        row[0].set_ylabel("singular value\n(Frobenius norm 1)")
    for ax in axes[-1]:
        ax.set_xlabel("share of values below")
    below(figure, axes[0, 0])
    figure.suptitle(
        "Singular values of Muon's momenta by kind of layer and step: medians over layers"
    )
    charts.save(figure, path)


def panel(ax, groups: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    shades = plt.get_cmap("viridis")(np.linspace(0.85, 0, max(1, len(groups))))
    for one, shade in zip(sorted(groups, key=lambda g: g["step"]), shades, strict=False):
        ax.plot(*curve(one, whole), color=shade, linewidth=1, label=f"step {one['step']}")
    shapes = {tuple(one["shape"]) for one in groups}
    for one in (g for g in whole["gaussian"] if tuple(g["shape"]) in shapes):
        ax.plot(*curve(one, whole), "--", color="0.4", linewidth=1, label="Gaussian")
    ax.set(yscale="log")


def curve(one: dict[str, Any], whole: dict[str, Any]) -> tuple[list[float], list[float]]:
    return whole["levels"], [value or np.nan for value in one["quantiles"]]

"""The picture of the stability map."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from bench.display import charts
from bench.laboratory import dynamics
from optimizers.coefficients import Triple

COLOURS = ("#eeeeee", "#f6c28b", "#8fce8f", "#9db8ea", "#c9a0dc")  # of dynamics.KINDS
MEANINGS = (
    "escapes",
    "changes sign",
    "one value: converges",
    "two values in turn",
    "more values: cycles and chaos",
)
CONTOURS = (0.1, 0.2, 0.3)
SHOWN = ("keller", "su", "fitted T=5", "taylor")  # in the last panel


def draw(path: Path, plane, sets: dict[str, Triple], solutions, frontier, steps: int) -> None:
    """Three panels: the map; largest slope against e; least e against the inputs served."""
    charts.style()
    figure, axes = plt.subplot_mosaic(
        [["map", "slope"], ["map", "after"]], figsize=(12, 6.6), width_ratios=[1.7, 1]
    )
    draw_map(axes["map"], plane, sets)
    draw_slopes(axes["slope"], sets, solutions)
    draw_frontier(axes["after"], sets, frontier, steps)
    charts.save(figure, path)


def draw_map(ax: Axes, plane, sets: dict[str, Triple]) -> None:
    ax.pcolormesh(
        plane.slopes,
        plane.multipliers,
        plane.long_run.kind,
        cmap=ListedColormap(COLOURS),
        vmin=-0.5,
        vmax=4.5,
        rasterized=True,
    )
    lines = ax.contour(
        plane.slopes,
        plane.multipliers,
        plane.long_run.epsilon,
        levels=CONTOURS,
        colors="0.25",
        linewidths=0.7,
    )
    ax.clabel(lines, fmt="e = %g", fontsize=7)
    places = {name: dynamics.place(triple) for name, triple in sets.items()}
    known = sorted((-p.multiplier, p.slope, name) for name, p in places.items() if p is not None)
    height = {True: 1.0, False: 1.0}  # of the last label on the left and on the right
    for minus_multiplier, slope, name in known:
        left = slope < 3
        height[left] = min(height[left], -minus_multiplier + 1.0) - 0.22
        ax.plot(slope, -minus_multiplier, "o", color="black", markersize=4)
        ax.annotate(
            name,
            (slope, -minus_multiplier),
            (slope + 0.25, height[left]),
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5},
        )
    ax.plot(5, -5, "x", color="black", markersize=6)
    ax.annotate("Chebyshev T5: the steepest bounded", (5, -5), (-10, -4), ha="right", fontsize=8,
                textcoords="offset points", va="center")  # fmt: skip
    patches = [Patch(color=c, label=m) for c, m in zip(COLOURS, MEANINGS, strict=True)]
    ax.legend(handles=patches, loc="lower left", fontsize=8, frameon=True)
    ax.grid(False)
    ax.set(
        xlabel="slope at zero: a",
        ylabel="slope at the smallest positive fixed point",
        title="What becomes of small singular values if one triple is applied for ever\n"
        "(lines: rescaled, all ends within e of 1)",
    )


def draw_slopes(ax: Axes, sets: dict[str, Triple], solutions) -> None:
    epsilons = [one.epsilon for one in solutions]
    ax.plot(epsilons, [one.limit.slope for one in solutions], label="ends there (limit)")
    ax.plot(epsilons, [one.stay[0] for one in solutions], label="gets there and stays")
    for name, triple in sets.items():
        run = dynamics.long_run(*triple)
        if run.kind < dynamics.ONE:
            continue
        own = max(run.high - 1, 1 - run.low)
        ax.plot(own, triple[0], "o", color="black", markersize=3)
        above = name == "su"  # the other labels would overlap it
        ax.annotate(
            name, (own, triple[0]), (5, 5 if above else -8), textcoords="offset points", fontsize=7
        )
    ax.set(xlabel="e", ylabel="slope at zero")
    ax.set_title("The largest slope for which (0, 1] ends within e of 1,\nand the e of known sets")
    ax.legend(fontsize=8, loc="lower right")


def draw_frontier(ax: Axes, sets: dict[str, Triple], frontier, steps: int) -> None:
    lows = np.geomspace(frontier[0][0], frontier[-1][0], 60)
    for name in SHOWN:
        ends = [dynamics.epsilon_after(sets[name], low, steps) for low in lows]
        ax.plot(lows, ends, label=name, linewidth=1)
    ax.plot(
        [low for low, _, _ in frontier],
        [epsilon for _, epsilon, _ in frontier],
        "o-",
        color="black",
        markersize=3,
        label="the best triple for each",
    )
    ax.set(xscale="log", yscale="log", xlabel="smallest input served", ylabel="e")
    ax.set_title(f"After {steps} steps all larger inputs end within e of 1")
    ax.legend(fontsize=8)

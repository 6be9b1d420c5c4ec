"""The laboratory's pictures: curves, spectra before and after, error against cost."""

import math
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bench.display import charts
from bench.laboratory import recursion
from bench.laboratory.matrices import Problem
from bench.laboratory.settings import Settings

KINDS = ("recursion", "fp64", "fp32", "bf16", "fp16")  # the panels of a picture


def curves(folder: Path, settings: Settings) -> None:
    """The iteration's curve g^T(s): where each singular value ends; one panel per method."""
    charts.style()
    figure, axes = grid(len(settings.methods), width=3.4, height=2.4)
    s = np.geomspace(1e-4, 1, 400)
    shades = plt.get_cmap("viridis")(np.linspace(0.85, 0, len(settings.steps)))
    for ax, method in zip(axes, settings.methods, strict=True):
        for low, high in ((0.5, 1.5), (0.7, 1.3)):
            ax.axhspan(low, high, color="0.5", alpha=0.12, linewidth=0)
        for steps, shade in zip(sorted(settings.steps), shades, strict=True):
            ends = recursion.iterate(s, method.triples(steps))
            ends = np.where(np.abs(ends) <= 2, ends, np.nan)
            ax.plot(s, ends, color=shade, linewidth=1, label=f"T = {steps}")
        ax.set(xscale="log", ylim=(0, 1.9), title=method.name)
        ax.set(xlabel="singular value s before", ylabel="after: $g^T(s)$")
    below(figure, axes[0])
    figure.suptitle("Where T steps take a singular value (shaded: 0.7–1.3 and 0.5–1.5)")
    charts.save(figure, folder / "curves.svg")


def spectra(folder: Path, problem: Problem, records: list[dict[str, Any]]) -> None:
    """Singular values before and after, for each method at the number of steps nearest to 5."""
    found = [r for r in records if r["form"] == "recursion" and r["status"] == "ok"]
    if not found:
        return
    charts.style()
    steps = min((r["steps"] for r in found), key=lambda t: abs(t - 5))
    found = [r for r in found if r["steps"] == steps]
    figure, axes = grid(len(found) + 1, width=2.6, height=2.0)
    values = problem.spectra[problem.spectra > 0]
    bins = np.geomspace(values.min() * 0.999, values.max() * 1.001, 40).tolist()
    axes[0].hist(values, bins, weights=np.full(len(values), 1 / len(values)), color="0.5")
    axes[0].set(xscale="log", title="before", xlabel="s", ylabel="share")
    most = max(max(r["histogram"]["counts"]) / sum(r["histogram"]["counts"]) for r in found)
    for i, (ax, one) in enumerate(zip(axes[1:], found, strict=False)):
        histogram = one["histogram"]
        counts = np.array(histogram["counts"])
        edges = np.linspace(histogram["low"], histogram["high"], len(counts) + 1)
        ax.stairs(counts / counts.sum(), edges, fill=True, color=colour(i))
        ax.axvline(1, color="0.3", linewidth=0.8)
        ax.set(title=f"{one['method']}: {one['mse']['mean']:.3g}", xlabel="s after")
        ax.set(ylim=(0, 1.05 * most))  # the same for all, so that heights compare
    n, m = problem.shape
    figure.suptitle(
        f"Singular values of {n}×{m} matrices ({problem.source}) before and after {steps} steps; "
        "beside each name the mean (s−1)²"
    )
    charts.save(figure, folder / f"spectra-{label(problem)}.svg")


def pareto(folder: Path, problem: Problem, records: list[dict[str, Any]]) -> None:
    """Error against FLOPs in each dtype; the line joins the cases that none beats at their cost."""
    found = [r for r in records if r["mse"] and r["flops"]]
    kinds = [k for k in KINDS if any(kind(r) == k for r in found)]
    if not kinds:
        return
    charts.style()
    figure, axes = grid(len(kinds), width=4.2, height=3.2)
    names = list(dict.fromkeys(r["method"] for r in found))
    for ax, which in zip(axes, kinds, strict=True):
        mine = [r for r in found if kind(r) == which]
        for i, name in enumerate(names):
            for one in (r for r in mine if r["method"] == name):
                x, y = point(one)
                marker = "D" if one["form"] == "gram" else "o"
                ax.plot(x, y, marker, color=colour(i), markersize=4, linestyle="")
                ax.annotate(f" {one['steps']}", (x, y), fontsize=6, color=colour(i))
            ax.plot([], [], "o", color=colour(i), label=name)
        front = sorted(point(r) for r in mine if r["pareto"])
        ax.step(*zip(*front, strict=True), where="post", color="0.3", linewidth=1, zorder=0)
        ax.set(xscale="log", yscale="log", xlabel="GFLOP a matrix", ylabel="mean (s−1)²")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_title("exact arithmetic (recursion)" if which == "recursion" else which)
    below(figure, axes[0])
    n, m = problem.shape
    figure.suptitle(
        f"Error against cost, {n}×{m}, {problem.source}: numbers are steps, diamonds the Gram "
        "form, the line the best for each cost"
    )
    charts.save(figure, folder / f"pareto-{label(problem)}.svg")


def point(one: dict[str, Any]) -> tuple[float, float]:
    """In GFLOP; errors below 1e-8 are drawn at 1e-8, to leave room for the others."""
    return one["flops"] / 1e9, max(one["mse"]["mean"], 1e-8)


def kind(one: dict[str, Any]) -> str:
    return "recursion" if one["form"] == "recursion" else one["dtype"]


def label(problem: Problem) -> str:
    n, m = problem.shape
    return re.sub(r"[^\w.+-]", "_", f"{n}x{m}-{problem.source}")


def colour(i: int) -> Any:
    return plt.get_cmap("tab10" if i < 10 else "tab20")(i % 20)


def grid(count: int, width: float, height: float) -> tuple[Any, list[Axes]]:
    """A figure with `count` panels, at most four (few: three) per row; unused ones stay empty."""
    columns = min(count, 4 if count != 3 and count != 5 and count != 6 else 3)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows + 0.8), squeeze=False
    )
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, list(axes.flat[:count])


def below(figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)))

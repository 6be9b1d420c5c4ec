"""The laboratory's tables, for the terminal."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.display import terminal
from bench.display.numbers import number
from bench.laboratory.matrices import Problem

MOST = 40  # rows; where there are more cases, only those on the Pareto front are shown


def show(problem: Problem, records: list[dict[str, Any]]) -> None:
    """One row a case, by dtype, the cheapest first; a star for what is best for its FLOPs."""
    shown = records
    n, m = problem.shape
    title = f"{n}×{m}, {problem.source}"
    if len(records) > MOST:
        shown = [r for r in records if r["pareto"] or r["status"] == "diverged"]
        title += f": the {len(shown)} of {len(records)} cases that are best for their FLOPs"
        if any(r["status"] == "diverged" for r in shown):
            title += ", or diverged"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    headings = ["method", "T", "form", "mean (s−1)²", "s", "relative\nerror", "off\nrecursion"]
    headings += ("slope\nat 0", "0.5–1.5 /\n0.7–1.3 from", "matmuls", "GFLOP", "ms", "of\npeak")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("method", "form") else "right")
    order = lambda r: (r["dtype"], r["form"] != "recursion", r["flops"] or 0)  # noqa: E731
    for one in sorted(shown, key=order):
        table.add_row(*row(one), style="dim" if one["status"] == "diverged" else None)
    terminal.show(table)


def of_momenta(whole: dict[str, Any]) -> Table:
    """One row a run, kind and step; beside it Gaussian matrices of the same shape."""
    shown = Table(title="momenta's singular values, of norm 1: medians", title_justify="left")
    sets = ("keller", "su", "polar_express", "taylor")
    for heading in ("run", "kind", "step", "shape", "s_max", "condition", "effective rank"):
        shown.add_column(heading)
    for name in sets:
        shown.add_column(f"{name}\nmean (s−1)²", justify="right")
    gaussian = [{"run": "Gaussian", "kind": "–", "step": "–", **one} for one in whole["gaussian"]]
    for one in whole["all"]:
        errors = (f"{one['mse']['5'][name]:.3f}" for name in sets)
        shown.add_row(one["run"], "all", str(one["step"]), *("",) * 4, *errors)
    for one in [*whole["groups"], *gaussian]:
        shown.add_row(
            *(one["run"], one["kind"], str(one["step"]), "×".join(map(str, one["shape"]))),
            f"{one['quantiles'][-1]:.3f}",
            f"{one['condition']['median']:,.0f}",
            f"{one['effective_rank']['median']:.0f}",
            *(f"{one['mse']['5'][name]:.3f}" for name in sets),
        )
    return shown


def row(one: dict[str, Any]) -> list[str]:
    if one["status"] == "diverged":
        measured = [f"diverged at step {one['diverged_step']}", "–", "–", "–"]
    else:
        measured = [
            mse(one["mse"]),
            f"{one['s_min']:.2g}–{one['s_max']:.4g}",
            number(one["relative_error"], ".3f"),
            number(one.get("recursion_difference"), ".0e"),
        ]
    return [
        one["method"] + (" *" if one["pareto"] else ""),
        str(one["steps"] or "–"),
        f"{one['form']} {one['dtype']}",
        *measured,
        number(one["slope_at_zero"], ",.4g"),
        " / ".join(number(value, ".2g") for value in (one["thresholds"] or {}).values()) or "–",
        str(one["matmuls"] or "–"),
        number(one["flops"] and one["flops"] / 1e9, ",.3g"),
        number(one["ms"] and one["ms"]["median"], ",.3g"),
        number(one["share_of_peak"], ".0%"),
    ]


def mse(value: dict[str, float]) -> str:
    """The mean and half its interval, both with the half's second digit."""
    half = value["high"] - value["mean"]
    if not half > 0:  # one sample, or no spread
        return f"{value['mean']:.3g}"
    return f"{value['mean']:.4g} ± {half:.0e}"

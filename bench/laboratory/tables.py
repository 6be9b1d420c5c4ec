"""The laboratory's tables, for the terminal."""

from typing import Any

from rich.table import Table
from rich.text import Text

from bench.display import terminal
from bench.display.numbers import number
from bench.display.terminal import add, plain_table
from bench.laboratory.matrices import Problem

MOST = 40  # rows; if there are more cases, only the Pareto front is shown
COLUMNS = {
    "method": "method",
    "steps": "T",
    "form": "form",
    "mse": "mean (s−1)²",
    "s": "s",
    "error": "relative\nerror",
    "off": "off\nrecursion",
    "slope": "slope\nat 0",
    "bands": "0.5–1.5 /\n0.7–1.3 from",
    "matmuls": "products",
    "flops": "GFLOP",
    "ms": "ms",
    "peak": "of\npeak",
}
NARROW = ("method", "steps", "form", "mse", "s", "matmuls", "flops", "ms")
WIDE = 132  # terminal columns that fit all columns of the table
FORMS = {"newton_schulz": "plain", "recursion": "exact,"}  # recursion: on singular values only
USUAL, KELLER = 5, "keller"  # what "Muon" usually means
SHORTEST = ("bf16", "fp16", "fp32", "fp64")


def show(problem: Problem, records: list[dict[str, Any]]) -> None:
    """The finding in a sentence, then one row per case, by dtype, the cheapest first.

    A star: best for its FLOPs. A narrow terminal omits some columns, which the records have.
    """
    n, m = problem.shape
    shown, which = records, ""
    if len(records) > MOST:
        shown = [r for r in records if r["pareto"] or r["status"] == "diverged"]
        which = f"; here the {len(shown)} that are best for their FLOPs, or diverged"
    terminal.show("", f"{n}×{m}, {problem.source}: {finding(records)} {len(records)} cases{which}.")
    kept = [c for c in COLUMNS if c in NARROW or terminal.width() >= WIDE]
    table = plain_table(*(COLUMNS[c] for c in kept), words=(0, 2))
    order = lambda r: (r["dtype"], r["form"] != "recursion", r["flops"] or 0)  # noqa: E731
    for one in sorted(shown, key=order):
        cells = row(one)
        add(table, *(cells[c] for c in kept), style="dim" if diverged(one) else None)
    terminal.show(table)


def diverged(one: dict[str, Any]) -> bool:
    return one["status"] == "diverged"


def finding(records: list[dict[str, Any]]) -> str:
    """After 5 steps in bf16 cubic5 is nearest to msign, mean (s−1)² 0.0031; keller has 0.0442.

    For the smallest number of steps from 5 on, or the largest below; in the shortest dtype.
    """
    known = [r for r in records if r["mse"] and r["steps"]]
    if not known:
        return "no method reached msign."
    steps = min({r["steps"] for r in known}, key=lambda t: (t < USUAL, abs(t - USUAL)))
    dtype = min({r["dtype"] for r in known}, key=SHORTEST.index)
    alike = [r for r in known if (r["steps"], r["dtype"]) == (steps, dtype)]
    best = min(alike or known, key=lambda r: r["mse"]["mean"])
    said = (
        f"after {best['steps']} steps in {best['dtype']} {best['method']} is nearest to msign, "
        f"mean (s−1)² {best['mse']['mean']:.3g}"
    )
    usual = [r["mse"]["mean"] for r in alike if r["method"] == KELLER != best["method"]]
    said += f"; {KELLER} has {min(usual):.3g}" if usual else ""
    lost = sum(map(diverged, records))
    return f"{said}; {lost} diverged." if lost else f"{said}."


def of_momenta(whole: dict[str, Any]) -> Table:
    """One row per run, kind and step, with Gaussian matrices of the same shape for comparison."""
    sets = ("keller", "su", "polar_express", "taylor")
    heads = ("run", "kind", "step", "shape", "s_max", "condition", "rank")
    shown = plain_table(*heads, *(name.replace("_", "\n") for name in sets), words=(0, 1))
    shown.title = Text("momenta's singular values, of norm 1: medians; by set: mean (s−1)²")
    gaussian = [{"run": "Gaussian", "kind": "–", "step": "–", **one} for one in whole["gaussian"]]
    for one in whole["all"]:
        errors = (f"{one['mse']['5'][name]:.3f}" for name in sets)
        add(shown, one["run"], "all", str(one["step"]), *("",) * 4, *errors)
    for one in [*whole["groups"], *gaussian]:
        add(
            shown,
            *(one["run"], one["kind"], str(one["step"]), "×".join(map(str, one["shape"]))),
            f"{one['quantiles'][-1]:.3f}",
            f"{one['condition']['median']:,.0f}",
            f"{one['effective_rank']['median']:.0f}",
            *(f"{one['mse']['5'][name]:.3f}" for name in sets),
        )
    return shown


def row(one: dict[str, Any]) -> dict[str, str]:
    """The cells of a case, by the names of COLUMNS."""
    found = dict.fromkeys(COLUMNS, "–")
    if diverged(one):
        found |= {"mse": "diverged", "s": f"at step {one['diverged_step']}"}
    else:
        found |= {
            "mse": mse(one["mse"]),
            "s": f"{one['s_min']:.2g}–{one['s_max']:.3g}",
            "error": number(one["relative_error"], ".3f"),
            "off": number(one.get("recursion_difference"), ".0e"),
        }
    bands = (number(value, ".2g") for value in (one["thresholds"] or {}).values())
    return found | {
        "method": one["method"] + (" *" if one["pareto"] else ""),
        "steps": str(one["steps"] or "–"),
        "form": f"{FORMS.get(one['form'], one['form'])} {one['dtype']}",
        "slope": number(one["slope_at_zero"], ",.4g"),
        "bands": " / ".join(bands) or "–",
        "matmuls": str(one["matmuls"] or "–"),
        "flops": plain(one["flops"] and one["flops"] / 1e9),
        "ms": plain(one["ms"] and one["ms"]["median"]),
        "peak": number(one["share_of_peak"], ".0%"),
    }


def plain(value: float | None) -> str:
    """At least three digits, never a power of ten."""
    return number(value, ",.0f" if value and value >= 100 else ".3g")


def mse(value: dict[str, float]) -> str:
    """The mean and half its interval, both to the half's second digit."""
    half = value["high"] - value["mean"]
    if not half > 0:  # one sample, or no spread
        return f"{value['mean']:.3g}"
    return f"{value['mean']:.4g} ±{half:.0e}"

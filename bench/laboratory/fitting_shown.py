"""The output of a fit: tables for the terminal, and a file of conf/orthogonalizer/."""

from typing import Any

from rich.table import Table

from bench.display.numbers import number
from bench.laboratory import search
from bench.laboratory.recursion import Estimate
from bench.laboratory.search import Fit
from bench.laboratory.tables import mse
from optimizers.coefficients import Triple

OFFICIAL = "keller"
Errors = dict[str, Estimate]


def gain(errors: Errors, name: str) -> float:
    """The share of the official set's mean square error that a set removes; negative: adds."""
    return 1 - errors[name].mean / errors[OFFICIAL].mean


def fits_table(fits: dict[str, Fit], errors: Errors) -> Table:
    title = "fitted sets (±: one standard error from sampling)"
    table = Table(title=title, title_justify="left")
    headings = ("set", "a, b, c", "for inputs", "starts agree", "spread", "condition", "certain")
    for heading in (*headings, "mean (s−1)² fitted", "on new spectra", "most from [0, 1]"):
        table.add_column(heading, no_wrap=heading in ("set", "a, b, c"))
    for name, fit in fits.items():
        table.add_row(
            name,
            coefficients_text(fit),
            f"{fit.low:.2g} to {fit.high:.2g}",
            f"{fit.agreeing} of {fit.starts}",
            number(fit.spread, ".1e"),
            number(fit.condition, ".1e"),
            "yes" if fit.certain else "no",
            f"{fit.mse:.4g}",
            mse(errors[name]._asdict()),
            f"{fit.top:.3f}",
        )
    return table


def coefficients_text(fit: Fit) -> str:
    if fit.errors is None:
        return "\n".join(", ".join(f"{k:.4f}" for k in triple) for triple in fit.triples)
    pairs = zip(fit.triples[0], fit.errors, strict=True)
    points = ", ".join(f"{x:.3f}" for x in search.fixed_points(fit.triples[0])) or "none"
    return ", ".join(f"{k:.4f} ± {e:.0e}" for k, e in pairs) + f"\nfixed points {points}"


def ranking_table(errors: Errors, on: str, steps: int, dtype: str) -> Table:
    how = "scalar recursion" if dtype == "fp64" else "iteration on matrices"
    title = f"{steps} steps on {on}, {dtype} ({how})"
    table = Table(title=title, title_justify="left")
    for heading in ("set", "mean (s−1)²", f"gain over {OFFICIAL}"):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    for name in sorted(errors, key=lambda k: errors[k].mean):
        table.add_row(name, mse(errors[name]._asdict()), f"{gain(errors, name):+.1%}")
    return table


def travel_table(travelled: dict[tuple[int, int], Errors], sets: dict[str, list[Triple]]) -> Table:
    """Rows: shapes; columns: the gain of each set over the official one."""
    title = f"does it travel? gain over {OFFICIAL} on Gaussian matrices of other shapes"
    table = Table(title=title, title_justify="left")
    others = [name for name in sets if name != OFFICIAL]
    for heading in ("shape", f"{OFFICIAL}, mean (s−1)²", *others):
        table.add_column(heading, justify="right")
    for (n, m), errors in travelled.items():
        gains = [f"{gain(errors, name):+.1%}" for name in others]
        table.add_row(f"{n}×{m}", mse(errors[OFFICIAL]._asdict()), *gains)
    return table


def as_yaml(on: str, fit: Fit, found: dict[str, Any]) -> str:
    """The file of conf/orthogonalizer: its origin in comments, and its settings.

    on: what it was fitted to; found: the record, whose chosen set is `fit`.
    """
    asked, errors, chosen = found["asked"], found["errors"], found["chosen"]
    what = "One triple" if len(fit.triples) == 1 else "A triple a step"
    sample = (
        f"{found['samples']} spectra, seed {found['seed']}, inputs {fit.low:.2g}-{fit.high:.2g}"
    )
    others = "new spectra" if found["held_out"] else "the same matrices"
    measured = f"{errors[chosen]['mean']:.4g} ({OFFICIAL} {errors[OFFICIAL]['mean']:.4g})"
    rows = "\n".join(f"  - [{', '.join(f'{k:.7f}' for k in triple)}]" for triple in fit.triples)
    return f"""\
# {what} for {asked["steps"]} steps, fitted to {on} ({chosen}).
# Mean (s-1)^2 on {others} in {asked["dtype"]}: {measured}.
# From {sample}; optimum certain: {"yes" if fit.certain else "no"}.
# Inputs of [0, 1] end at most at {fit.top:.3g}.
# Made by: {found["command"]}
name: fitted
coefficients:
{rows}
steps: {asked["steps"]}
method: auto
dtype: {"auto" if asked["dtype"] == "fp64" else asked["dtype"]}
norm: frobenius
"""

"""bench/ortho.py fit=true: coefficients fitted to a source of matrices, and how far they carry.

Fits both kinds of set (search.py), measures them beside the published ones on spectra that no fit
has seen and on other shapes, and writes the asked kind to conf/orthogonalizer/fitted.yaml.
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table

from bench.display import terminal
from bench.display.numbers import number
from bench.laboratory import iteration, matrices, recursion, search
from bench.laboratory import settings as ortho_config
from bench.laboratory.matrices import Matrices, Problem
from bench.laboratory.recursion import Estimate
from bench.laboratory.search import Fit
from bench.laboratory.settings import Settings, Source
from bench.laboratory.tables import mse
from bench.records import origin, record
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from optimizers.coefficients import Triple, per_step
from optimizers.orthogonalize.iteration import DTYPES

FITTED = CONF / "orthogonalizer" / "fitted.yaml"
KINDS = ("single", "minimax")
OFFICIAL = "keller"
PUBLISHED = (OFFICIAL, "su", "you5", "cans", "polar_express")
TRAVEL = [(n, ratio * n) for n in (64, 256, 1024, 2048) for ratio in (1, 2, 4, 8)]
SAFETY = {"minimax": 1.0, "minimax_safe": 1.01}  # the second as Polar Express, against rounding

Sets = dict[str, list[Triple]]


class Asked(NamedTuple):
    """The block `fitting` of conf/ortho.yaml, read."""

    kind: str
    shape: tuple[int, int]
    steps: int
    dtype: str
    source: Source
    samples: int
    starts: int


def run(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Fit, compare, write; returns the record, which goes to results_dir/ortho/fitting-….json."""
    asked = check(settings.fitting)
    seen, unseen = samples(asked, settings)
    n, m = asked.shape
    say(f"fitting {asked.steps} steps to {len(seen.spectra)} spectra of {n}x{m} {seen.source}")
    fits = {
        "single": search.single(seen.spectra, asked.steps, asked.starts, settings.seed),
        **{
            name: search.minimax(seen.spectra, asked.steps, asked.starts, safety)
            for name, safety in SAFETY.items()
        },
    }
    sets = {name: per_step(fit.triples, asked.steps) for name, fit in fits.items()}
    sets |= {name: per_step(name, asked.steps) for name in PUBLISHED}
    errors = recursion_errors(sets, unseen)
    ranked = errors if asked.dtype == "fp64" else matrix_errors(sets, unseen, asked, settings.seed)
    chosen = min((name for name in fits if name.startswith(asked.kind)), key=lambda k: ranked[k])
    terminal.show(fits_table(fits, errors))
    terminal.show(ranking_table(ranked, unseen, asked))
    travelled = travel(sets, settings.seed)
    terminal.show(travel_table(travelled, sets))
    found = {
        "asked": {**asked._asdict(), "source": seen.source},
        "seed": settings.seed,
        "samples": len(seen.spectra),
        "held_out": unseen is not seen,
        "fits": {name: asdict(fit) for name, fit in fits.items()},
        "errors": {name: error._asdict() for name, error in ranked.items()},
        "travel": [
            {"shape": list(shape), "mse": {k: e._asdict() for k, e in row.items()}}
            for shape, row in travelled.items()
        ],
        "chosen": chosen,
        **origin.made(),
    }
    folder = Path(settings.results_dir) / "ortho"
    folder.mkdir(parents=True, exist_ok=True)
    case = f"fitting-{n}x{m}-T{asked.steps}-{asked.dtype}-{seen.source}.json"
    record.write_json(folder / re.sub(r"[^\w.+-]", "_", case), found)
    text = as_yaml(asked, fits[chosen], ranked, chosen, found)
    FITTED.write_text(text, encoding="utf-8")
    say(f"{chosen} written to {FITTED}; train with orthogonalizer=fitted")
    return found


def check(block: dict[str, Any]) -> Asked:
    """Raises UserError naming the setting, its value and what is accepted."""
    accepted = {"kind": KINDS, "dtype": tuple(DTYPES)}
    for key, values in accepted.items():
        if block[key] not in values:
            raise UserError(f"fitting.{key}={block[key]}: must be one of {', '.join(values)}")
    for key, least in (("steps", 1), ("samples", 2), ("starts", 3)):
        ortho_config.whole(f"fitting.{key}", block[key], least)
    try:
        shape, source = ortho_config.shape(block["shape"]), ortho_config.source(block["source"])
    except UserError as error:
        raise UserError(f"fitting: {error}") from None
    if block["dtype"] != "fp64" and min(shape) > matrices.LARGEST:
        raise UserError(
            f"fitting.dtype={block['dtype']}: matrices are iterated up to {matrices.LARGEST} rows "
            f"or columns only; fitting.shape={block['shape']} needs fitting.dtype=fp64"
        )
    return Asked(**{**block, "shape": shape, "source": source})


def samples(asked: Asked, settings: Settings) -> tuple[Problem, Problem]:
    """What to fit to, and what to measure on: other samples, but for momentum the same."""
    if asked.source.kind == "momentum":
        pooled = momentum_of_shape(asked.shape, settings)
        return pooled, pooled
    seen, unseen = (
        matrices.random(asked.source, asked.shape, asked.samples, settings.seed + shift)
        for shift in (0, 1)
    )
    return seen, unseen


def momentum_of_shape(shape: tuple[int, int], settings: Settings) -> Problem:
    """All momentum matrices of one shape, whatever their layer."""
    there = list(matrices.momentum(settings))
    same = [problem for problem in there if problem.shape == shape]
    if not same:
        n, m = shape
        shapes = ", ".join(sorted({"x".join(map(str, problem.shape)) for problem in there}))
        raise UserError(f"fitting.shape={n}x{m}: no momentum matrix has it; there is {shapes}")

    def form() -> Matrices:
        X, Q, s = zip(*(problem.matrices() for problem in same), strict=True)
        return Matrices(torch.cat(X), torch.cat(Q), np.concatenate(s))

    rows = np.concatenate([problem.spectra for problem in same])
    return Problem(same[0].source.partition("_layer")[0], shape, rows, form)


def recursion_errors(sets: Sets, problem: Problem) -> dict[str, Estimate]:
    return {name: recursion.mse(problem.spectra, triples) for name, triples in sets.items()}


def matrix_errors(sets: Sets, problem: Problem, asked: Asked, seed: int) -> dict[str, Estimate]:
    """Mean (s-1)^2 of each set by the iteration itself, in the asked dtype, on fewer matrices."""
    if asked.source.kind != "momentum":
        problem = matrices.random(asked.source, asked.shape, None, seed + 1)
    few = problem.matrices()
    return {name: matrix_error(few, triples, asked.dtype) for name, triples in sets.items()}


def matrix_error(few: Matrices, triples: list[Triple], dtype: str) -> Estimate:
    outcome = iteration.on_matrices(few, triples, "newton_schulz", dtype)
    if isinstance(outcome, int):  # the step at which it diverged
        return Estimate(np.inf, np.nan, np.nan)
    return recursion.estimate(np.mean((outcome.s_bk - 1) ** 2, axis=1, where=few.s_bk > 0))


def travel(sets: Sets, seed: int) -> dict[tuple[int, int], dict[str, Estimate]]:
    """Every set on Gaussian matrices of other shapes."""
    gaussian = Source("gaussian")
    return {
        shape: recursion_errors(sets, matrices.random(gaussian, shape, None, seed + 2))
        for shape in TRAVEL
    }


def gain(errors: dict[str, Estimate], name: str) -> float:
    """How much of the official set's mean square error another set removes; negative: adds."""
    return 1 - errors[name].mean / errors[OFFICIAL].mean


# what is shown and written ---------------------------------------------------------------------


def fits_table(fits: dict[str, Fit], errors: dict[str, Estimate]) -> Table:
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


def ranking_table(errors: dict[str, Estimate], problem: Problem, asked: Asked) -> Table:
    n, m = asked.shape
    how = "scalar recursion" if asked.dtype == "fp64" else "iteration on matrices"
    title = f"{asked.steps} steps on {n}×{m} {problem.source}, {asked.dtype} ({how})"
    table = Table(title=title, title_justify="left")
    for heading in ("set", "mean (s−1)²", f"gain over {OFFICIAL}"):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    for name in sorted(errors, key=lambda k: errors[k].mean):
        table.add_row(name, mse(errors[name]._asdict()), f"{gain(errors, name):+.1%}")
    return table


def travel_table(travelled: dict[tuple[int, int], dict[str, Estimate]], sets: Sets) -> Table:
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


def as_yaml(
    asked: Asked, fit: Fit, errors: dict[str, Estimate], chosen: str, found: dict[str, Any]
) -> str:
    """The file of conf/orthogonalizer: how it was made, in comments, and its settings."""
    n, m = asked.shape
    what = "One triple" if len(fit.triples) == 1 else "A triple a step"
    sample = (
        f"{found['samples']} spectra, seed {found['seed']}, inputs {fit.low:.2g}-{fit.high:.2g}"
    )
    on = "new spectra" if found["held_out"] else "the same matrices"
    measured = f"{errors[chosen].mean:.4g} ({OFFICIAL} {errors[OFFICIAL].mean:.4g})"
    rows = "\n".join(f"  - [{', '.join(f'{k:.7f}' for k in triple)}]" for triple in fit.triples)
    return f"""\
# {what} for {asked.steps} steps, fitted to {n}x{m} {found["asked"]["source"]} ({chosen}).
# Mean (s-1)^2 on {on} in {asked.dtype}: {measured}.
# From {sample}; optimum certain: {"yes" if fit.certain else "no"}.
# Made by: {found["command"]}
name: fitted
coefficients:
{rows}
steps: {asked.steps}
method: auto
dtype: {"auto" if asked.dtype == "fp64" else asked.dtype}
norm: frobenius
"""

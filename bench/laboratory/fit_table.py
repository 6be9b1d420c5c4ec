"""bench/ortho.py fit=table: the best single triples for Gaussian matrices of many shapes.

The fits are for the limit of large matrices (spectra.limit). They are also measured on sampled
matrices, which shows how close that limit is. The record grows with each fit: a stopped command
resumes from it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from bench.display import terminal
from bench.display.progress import ticks
from bench.laboratory import fit_chart, fitting, recursion, search, spectra
from bench.laboratory.search import Fit
from bench.laboratory.settings import Settings
from bench.records import files, origin, record
from optimizers.coefficients import KELLER, Triple

NAME = "fits"
SHAPES = [(n, ratio * n) for n in (1024, 2048, 4096, 8192) for ratio in (1, 2, 4, 8)]
STEPS = (3, 5)
SAMPLED = 2**15  # singular values per shape, from at least four spectra
CEILINGS = {"single": None, "bounded": search.CEILING}


def run(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Every shape and number of steps; returns the record, results_dir/ortho/fits.json."""
    asked = fitting.check(settings)
    declared = {"seed": settings.seed, "starts": asked.starts, "nodes": search.NODES}
    file = Path(settings.results_dir) / "ortho" / f"{NAME}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    before = read(file)
    if before["declared"] not in (None, declared) and not asked.replace:
        file = fitting.record_file(file, replace=False)
        before = read(file)
    done = {key(one): one for one in before["fits"] if before["declared"] == declared}
    left = [case for case in cases() if case not in done]
    if not left and asked.replace:
        left = cases()
    if not left:
        say(f"{file}: all {len(done)} fits are there; fitting.replace=true fits again from them")
    begun = time.perf_counter()
    with ticks(len(left)) as tick:
        for number, (shape, steps) in enumerate(left, start=1):
            tick(f"{shape[0]}x{shape[1]}, {steps} steps")
            nearest = [one for one in done.values() if one["steps"] == steps][-1:]
            own = [one for one in before["fits"] if key(one) == (shape, steps)]
            known = triples([*own, *nearest])
            done[shape, steps] = fit(shape, steps, asked.starts, settings.seed, known)
            fits = [done[case] for case in sorted(done)]
            record.write_json(file, {"declared": declared, "fits": fits, **origin.made()})
            seconds = (time.perf_counter() - begun) / number * (len(left) - number)
            say(f"{line(done[shape, steps])}; about {seconds / 60:.1f} min left")
    found = read(file)
    terminal.show(table(found["fits"]))
    if settings.pictures:
        fit_chart.draw(file.with_suffix(".svg"), found["fits"])
    say(f"{len(found['fits'])} fits in {file}")
    return found


def cases() -> list[tuple[tuple[int, int], int]]:
    return [(shape, steps) for shape in SHAPES for steps in STEPS]


def key(one: dict[str, Any]) -> tuple[tuple[int, int], int]:
    n, m = one["shape"]
    return (n, m), one["steps"]


def triples(fits: list[dict[str, Any]]) -> list[Triple]:
    found = [one[kind]["triple"] for one in fits for kind in CEILINGS]
    return [(a, b, c) for a, b, c in found]


def read(file: Path) -> dict[str, Any]:
    """The record so far; an empty one if there is no readable record."""
    try:
        found = files.read_json(file)
        return found if {"declared", "fits"} <= found.keys() else {"declared": None, "fits": []}
    except (OSError, ValueError, AttributeError):
        return {"declared": None, "fits": []}


def fit(
    shape: tuple[int, int], steps: int, starts: int, seed: int, known: list[Triple]
) -> dict[str, Any]:
    """Both kinds of triple for a shape; known: triples from an earlier fit or another shape."""
    limit = spectra.limit(*shape, search.NODES)[None]
    sampled = spectra.gaussian(*shape, max(4, SAMPLED // min(shape)), seed)
    found = {
        kind: search.single(limit, steps, starts, seed, ceiling, known)
        for kind, ceiling in CEILINGS.items()
    }
    return {
        "shape": list(shape),
        "steps": steps,
        "sampled": len(sampled),
        **{kind: described(one, sampled, steps) for kind, one in found.items()},
        "keller": measured(KELLER, limit, sampled, steps),
    }


def described(fit: Fit, sampled: np.ndarray, steps: int) -> dict[str, Any]:
    (triple,) = fit.triples
    return {
        "triple": list(triple),
        "mse": fit.mse,
        "sampled_mse": recursion.mse(sampled, fit.triples * steps)._asdict(),
        "top": fit.top,
        "starts": fit.starts,
        "agreeing": fit.agreeing,
        "certain": fit.certain,
    }


def measured(triple: Triple, limit: np.ndarray, sampled: np.ndarray, steps: int) -> dict[str, Any]:
    on_limit, on_sampled = (recursion.mse(rows, [triple] * steps) for rows in (limit, sampled))
    return {"mse": on_limit.mean, "sampled_mse": on_sampled._asdict()}


def line(one: dict[str, Any]) -> str:
    (n, m), steps = key(one)
    single, bounded = one["single"]["mse"], one["bounded"]["mse"]
    return f"{n}x{m}, {steps} steps: mse {single:.4g}, bounded {bounded:.4g}"


def table(fits: list[dict[str, Any]]) -> Table:
    shown = Table(title="best single triples for Gaussian matrices", title_justify="left")
    headings = ("shape", "T", "a, b, c", "mean (s−1)²", "sampled", "most from [0, 1]", "certain")
    for heading in (*headings, "bounded: a, b, c", "mean (s−1)²", "keller"):
        shown.add_column(heading, no_wrap=True)
    for one in fits:
        single, bounded = one["single"], one["bounded"]
        shown.add_row(
            "×".join(map(str, one["shape"])),
            str(one["steps"]),
            coefficients(single),
            f"{single['mse']:.4g}",
            f"{single['sampled_mse']['mean']:.4g}",
            "escapes" if single["top"] is None else f"{single['top']:.3g}",
            "yes" if single["certain"] else "no",
            coefficients(bounded),
            f"{bounded['mse']:.4g}",
            f"{one['keller']['mse']:.4g}",
        )
    return shown


def coefficients(one: dict[str, Any]) -> str:
    return ", ".join(f"{k:.4f}" for k in one["triple"])

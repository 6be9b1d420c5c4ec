"""Every case of a laboratory session: measures, records and shows it."""

import functools
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.display import progress
from bench.laboratory import charts, cost, iteration, recursion, tables
from bench.laboratory.iteration import Outcome
from bench.laboratory.matrices import Matrices, Problem, problems
from bench.laboratory.settings import Method, Settings
from bench.records import origin, record

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS, TOP = 30, 1.5  # of the histogram: from 0 to TOP; the last bin also has larger values
BANDS = ((0.5, 1.5), (0.7, 1.3))
RECURSION = "recursion"  # the form of a case that is computed on singular values only


class Case(NamedTuple):
    """One method in one form, number of steps and dtype; `problem` gives the matrices."""

    method: str
    form: str
    steps: int | None  # None for exact
    dtype: str
    triples: tuple[tuple[float, float, float], ...]

    def name(self, problem: Problem) -> str:
        n, m = problem.shape
        method = (
            [self.method] if self.form == "exact" else [self.method, f"T{self.steps}", self.form]
        )
        return re.sub(r"[^\w.+-]", "_", "-".join([*method, self.dtype, f"{n}x{m}", problem.source]))


def run(settings: Settings, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All cases, problem by problem; returns their records, which are also written."""
    folder = Path(settings.results_dir) / "ortho"
    if settings.device != "cpu":  # its cases have the same names
        folder /= settings.device
    posed = problems(settings)
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    for problem in posed:
        n, m = problem.shape
        start, planned = time.perf_counter(), list(cases(settings, problem))
        with progress.ticks(len(planned) + 1) as tick:
            tick(f"{n}x{m} {problem.source}: matrices")
            found = solve(settings, problem, planned, folder, say, tick)
        records += found
        tables.show(problem, found)
        took = time.perf_counter() - start
        say(f"{n}x{m} {problem.source}: {len(found)} cases, {took:.1f} s")
        if settings.pictures:
            charts.spectra(folder, problem, found)
            charts.pareto(folder, problem, found)
    if settings.pictures:
        charts.curves(folder, settings)
    say(f"{len(records)} records in {folder}")
    return records


def solve(
    settings: Settings,
    problem: Problem,
    planned: list[Case],
    folder: Path,
    say: Callable[[str], None],
    tick: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The cases of one problem. Finished cases are written, also after Ctrl-C."""
    records: list[dict[str, Any]] = []
    try:
        made = origin.made(settings.device)
        matrices = problem.form() if problem.form else None
        for case in planned:
            tick(case.name(problem))
            records.append(measured(settings, problem, matrices, case) | made)
    finally:
        mark_front(records)
        old = sum((folder / f"{r['case']}.json").exists() for r in records)
        for one in records:
            record.write_json(folder / f"{one['case']}.json", one)
        if old:
            say(f"{old} of these cases had a record from before; it is replaced")
    return records


def cases(settings: Settings, problem: Problem) -> Iterator[Case]:
    """Each case once: `auto` becomes the form that it means for this shape and dtype."""
    seen = set()
    for method in settings.methods:
        for steps in settings.steps:
            for form, dtype in forms(settings, problem):
                case = resolved(method, form, steps, dtype, problem, settings.device)
                if case not in seen:
                    seen.add(case)
                    yield case


def forms(settings: Settings, problem: Problem) -> Iterator[tuple[str, str]]:
    if settings.forms != ["exact"]:
        yield RECURSION, "fp64"
    if problem.form:
        for form in settings.forms:
            for dtype in settings.dtypes:
                yield form, dtype


def resolved(
    method: Method, form: str, steps: int, dtype: str, problem: Problem, device: str
) -> Case:
    if form == "exact":
        return Case("exact", form, None, dtype, ())
    triples = tuple(method.triples(steps))
    if form != RECURSION:
        form = cost.resolved(form, problem.shape, list(triples), dtype, device)
    return Case(method.name, form, steps, dtype, triples)


def measured(
    settings: Settings, problem: Problem, matrices: Matrices | None, case: Case
) -> dict[str, Any]:
    """The record of a case."""
    triples, device = list(case.triples), settings.device
    if case.form == RECURSION:
        s_bk = problem.spectra
        outcome = iteration.on_spectra(s_bk, triples)
        counted = cost.count("newton_schulz", problem.shape, triples, case.dtype)
    else:
        assert matrices is not None  # `forms` asks for none if there are none
        s_bk = matrices.s_bk
        outcome = iteration.on_matrices(matrices, triples, case.form, case.dtype, device)
        counted = cost.count(case.form, problem.shape, triples, case.dtype, device)
    diverged_step, ended = (outcome, None) if isinstance(outcome, int) else (None, outcome)
    return {
        "case": case.name(problem),
        "method": case.method,
        "form": case.form,
        "coefficients": [list(triple) for triple in triples],
        "shape": list(problem.shape),
        "steps": case.steps,
        "dtype": case.dtype,
        "source": problem.source,
        **problem.details,
        "samples": len(s_bk),
        "seed": settings.seed,
        "status": "diverged" if ended is None else "ok",
        "diverged_step": diverged_step,
        **quality(ended, s_bk > 0),
        "before": distribution(s_bk[s_bk > 0]),
        **(agreement(outcome, s_bk, triples) if case.form not in (RECURSION, "exact") else {}),
        **analysis(case.triples),
        "matmuls": counted.matmuls,
        "flops": counted.flops,
        **timing(problem.shape, case, counted.flops, device),
        "pareto": False,
    }


def quality(outcome: Outcome | None, present: np.ndarray) -> dict[str, Any]:
    """The distance from msign, with 95 % intervals over the samples; all null if it diverged.

    Only the largest singular values count, as many as the matrix has nonzero ones.
    """
    if outcome is None:
        keys = ("mse", "relative_error", "cosine", "orthogonality_error", "s_min", "s_max")
        return dict.fromkeys((*keys, "quantiles", "histogram"))
    errors = np.mean((outcome.s_bk - 1) ** 2, axis=1, where=present)
    return {
        "mse": recursion.estimate(errors)._asdict(),
        "relative_error": float(outcome.relative_error_b.mean()),
        "cosine": float(outcome.cosine_b.mean()),
        "orthogonality_error": float(outcome.orthogonality_error_b.mean()),
        **distribution(outcome.s_bk[present]),
        "histogram": {
            "low": 0.0,
            "high": TOP,
            "counts": np.histogram(outcome.s_bk[present].clip(0, TOP), BINS, (0, TOP))[0].tolist(),
        },
    }


def distribution(values: np.ndarray) -> dict[str, Any]:
    return {
        "s_min": float(values.min()),
        "s_max": float(values.max()),
        "quantiles": dict(
            zip(map(str, QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True)
        ),
    }


def agreement(outcome: Outcome | int, s_bk: np.ndarray, triples: list) -> dict[str, Any]:
    """The scalar recursion on the same matrices: its mse, and a singular value's largest change."""
    expected = iteration.on_spectra(s_bk, triples)
    if isinstance(outcome, int) or isinstance(expected, int):
        return {"recursion_mse": None, "recursion_difference": None}
    return {
        "recursion_mse": quality(expected, s_bk > 0)["mse"]["mean"],
        "recursion_difference": float(np.abs(outcome.s_bk - expected.s_bk).max()),
    }


@functools.cache
def analysis(triples: tuple) -> dict[str, Any]:
    """Values that follow from the coefficients alone; empty for exact."""
    if not triples:
        return {"slope_at_zero": None, "thresholds": None}
    return {
        "slope_at_zero": recursion.slope_at_zero(triples),
        "thresholds": {
            f"{low}-{high}": recursion.threshold(triples, low, high) for low, high in BANDS
        },
    }


def timing(shape: tuple[int, int], case: Case, flops: int | None, device: str) -> dict[str, Any]:
    """Milliseconds per matrix, FLOP/s, and these as a share of the best product's."""
    if case.form == RECURSION:
        return {"ms": None, "rate": None, "gemm_peak": None, "share_of_peak": None}
    ms = cost.milliseconds(case.form, shape, list(case.triples), case.dtype, device)
    peak = cost.gemm_peak(case.dtype, device)
    rate = flops / ms["median"] * 1e3 if flops else None
    return {
        "ms": ms,
        "rate": rate,
        "gemm_peak": peak,
        "share_of_peak": rate / peak if rate else None,
    }


def mark_front(records: list[dict[str, Any]]) -> None:
    """Mark the cases that no other of the same dtype beats in error at equal or lower FLOPs.

    The recursion is separate, because it is the result of exact arithmetic.
    """

    def kind(one: dict[str, Any]) -> tuple[str, bool]:
        return one["dtype"], one["form"] == RECURSION

    known = [r for r in records if r["mse"] and r["flops"] is not None]
    for group in {kind(r) for r in known}:
        best = math.inf
        for one in sorted(
            (r for r in known if kind(r) == group), key=lambda r: (r["flops"], r["mse"]["mean"])
        ):
            if one["mse"]["mean"] < best:
                best = one["mse"]["mean"]
                one["pareto"] = True

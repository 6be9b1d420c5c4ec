"""All that a report shows, gathered once: comparisons, verdicts, step benchmarks, gaps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.communication import extrapolation
from bench.communication.extrapolation import Point
from bench.records.archive import Run
from bench.reporting import own_runs
from bench.reporting.own_runs import OwnRuns
from bench.studies import study
from bench.studies.comparison import Comparison
from bench.studies.results import CHECKS, Results
from bench.studies.study import Study
from bench.verdicts import claims, judging
from bench.verdicts.ages import Ages
from bench.verdicts.judging import Verdict

# In order of importance; others follow by name. `smoke` says nothing.
FIRST = ("optimizers", "equal_time", "qkv", "orthogonalizer", "routing", "batch_size")


@dataclass(frozen=True)
class Content:
    """verdicts: on all claims; comparisons: by experiment, one a condition that has final runs;
    not_run: experiments without any; steps: the step benchmarks by name, shared: those of many
    processes; extrapolated: from these to more, none without them; own: runs in runs/ of
    no experiment that is declared; loose: published ones of none; left_out: files that are no
    whole record, with the reason.
    """

    results: Results
    verdicts: list[Verdict]
    comparisons: dict[str, list[Comparison]]
    not_run: list[Study]
    steps: dict[str, dict[str, Any]]
    shared: dict[str, dict[str, Any]]
    extrapolated: list[Point]
    own: OwnRuns
    loose: list[Run]
    left_out: list[tuple[Path, str]]


def gather(results: Results, ages: Ages | None = None) -> Content:
    """ages: of the rules, for verdicts to say which are younger than their records."""
    names = [name for name in study.declared() if name != "smoke" or results.archive.of(name)]
    names.sort(key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    comparisons = {}
    for name in names:
        every = results.comparisons(name, None)
        if any(one.arms for one in every):
            comparisons[name] = [one for one in every if one.arms]
    known = study.declared()
    steps, broken = step_benchmarks(results)
    shared = {name: one for name, one in steps.items() if one.get("parallel")}
    own = own_runs.gather(results.archive.runs, known)
    mine = {run.file for run in own.runs}
    return Content(
        results,
        [judging.judge(claim, results, ages) for claim in claims.load()],
        comparisons,
        [study.load(name) for name in names if name not in comparisons],
        {name: one for name, one in steps.items() if name not in shared},
        shared,
        extrapolation.assumed_points() if shared else [],
        own,
        [r for r in results.archive.runs if r.experiment not in known and r.file not in mine],
        results.archive.left_out + broken + results.broken_lines,
    )


def step_benchmarks(results: Results) -> tuple[dict[str, dict], list[tuple[Path, str]]]:
    """By name, and the files that are none, the laboratory's checks too, each with the reason."""
    found: dict[str, dict[str, Any]] = {}
    left_out: list[tuple[Path, str]] = []
    for name in CHECKS:
        checks = results.read(name)
        if isinstance(checks, str):
            left_out.append((results.folder / name, checks))
    for file in sorted((results.folder / "steps").glob("*.json")):
        one = results.read(f"steps/{file.name}")
        if isinstance(one, dict):
            found[file.stem] = one
        else:
            left_out.append((file, one or "cannot be read"))
    return found, left_out

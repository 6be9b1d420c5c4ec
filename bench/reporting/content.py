"""Everything a report shows, collected once: comparisons, verdicts, step benchmarks, gaps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.communication import extrapolation
from bench.communication.extrapolation import Point
from bench.records.archive import Run
from bench.reporting import own_runs
from bench.reporting.own_runs import OwnRuns
from bench.studies import sensitivity, study
from bench.studies.comparison import Comparison
from bench.studies.results import CHECKS, Results
from bench.studies.study import Study
from bench.verdicts import claims, judging
from bench.verdicts.ages import Ages
from bench.verdicts.judging import Verdict

# In order of importance; others follow by name. `smoke` is omitted.
FIRST = ("language", "equal_time", "optimizers", "qkv", "orthogonalizer", "routing", "batch_size")
COST = "cost"  # the experiment on time and memory


@dataclass(frozen=True)
class Content:
    """verdicts: on all claims; comparisons: by experiment, one per condition with final runs;
    not_run: experiments without final runs; steps: the step benchmarks by name; shared: those of
    many processes; extrapolated: from these to more processes, empty without them; own: runs in
    runs/ that belong to no declared experiment; loose: published runs of that kind; left_out: files
    that are no complete record, each with the reason.
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

    @property
    def controls(self) -> list[Comparison]:
        """Whether designs tell known differences apart."""
        return self.comparisons.get(sensitivity.EXPERIMENT, [])


def gather(results: Results, ages: Ages | None = None) -> Content:
    """ages: those of the rules, so that verdicts note rules younger than their records."""
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
    """By name; and the invalid files, including the laboratory's checks, each with the reason."""
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

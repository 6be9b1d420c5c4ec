"""All that a report shows, gathered once: comparisons, verdicts, step benchmarks, gaps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import claims, study
from bench.archive import Run
from bench.claims import Verdict
from bench.comparison import Comparison
from bench.evidence import Results
from bench.study import Study

# In order of importance; others follow by name. `smoke` says nothing.
FIRST = ("optimizers", "equal_time", "qkv", "orthogonalizer", "routing", "batch_size")


@dataclass(frozen=True)
class Content:
    """verdicts: on all claims; comparisons: by experiment, one a condition that has final runs;
    not_run: experiments without any; steps: the step benchmarks by name; loose: runs of no
    experiment that is declared; left_out: files that are no whole record, with the reason.
    """

    results: Results
    verdicts: list[Verdict]
    comparisons: dict[str, list[Comparison]]
    not_run: list[Study]
    steps: dict[str, dict[str, Any]]
    loose: list[Run]
    left_out: list[tuple[Path, str]]


def gather(results: Results) -> Content:
    names = [name for name in study.declared() if name != "smoke" or results.archive.of(name)]
    names.sort(key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    comparisons = {}
    for name in names:
        every = results.comparisons(name, None)
        if any(one.arms for one in every):
            comparisons[name] = [one for one in every if one.arms]
    known = study.declared()
    return Content(
        results,
        [claims.judge(claim, results) for claim in claims.load()],
        comparisons,
        [study.load(name) for name in names if name not in comparisons],
        {file.stem: results.json(f"steps/{file.name}") for file in step_files(results.folder)},
        [run for run in results.archive.runs if run.experiment not in known],
        results.archive.left_out,
    )


def step_files(folder: Path) -> list[Path]:
    return sorted((folder / "steps").glob("*.json"))

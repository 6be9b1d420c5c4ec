"""The user's own runs: those outside published experiments, compared where possible."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.display.cells import NONE, Cell, Table
from bench.display.numbers import megabytes, short
from bench.records.archive import Run
from bench.studies import curves, pairs, words
from bench.studies.groups import mean, throughput
from bench.studies.pairs import Bench, Group

DRAWN = 6  # benches with plotted curves
AGAINST = {"steps": "step", "seconds": "seconds of training, by the runs' own clock"}


def of(runs: Iterable[Run], declared: Iterable[str]) -> list[Run]:
    """The runs in runs/ that belong to no declared experiment, each once."""
    known, every = set(declared), list(runs)
    taken = {run.file for run in every if run.experiment in known}
    own = {run.file: run for run in every if run.file.name == "record.json"}
    return [run for file, run in sorted(own.items()) if file not in taken]


@dataclass(frozen=True)
class OwnRuns:
    """benches: the runs that can be compared; runs: all of them."""

    benches: list[Bench]
    runs: list[Run]


def gather(runs: Iterable[Run], declared: Iterable[str]) -> OwnRuns:
    own = of(runs, declared)
    return OwnRuns(pairs.benches(own), own)


# words and tables ---------------------------------------------------------------------------------


def lead(bench: Bench) -> str:
    """What is compared with what, or why nothing is."""
    if bench.baseline is None:
        return "No finished AdamW run of this setting: nothing to compare with."
    best = bench.baseline
    several = sum(one.optimizer == best.optimizer for one in bench.groups) > 1
    chosen = ", the best of AdamW's by validation loss" * several
    return (
        f"Difference: test loss minus that of {best.name}{chosen}, paired by seed, with its 95 % "
        "interval; below 0 is better."
    )


def finding(bench: Bench) -> str:
    """The group with the lowest mean loss."""
    ends = {one.name: found[-1][1] for one in bench.groups if (found := curves.curve(one.runs))}
    if not ends:
        return "No run has finished."
    best = min(ends, key=lambda name: ends[name].mean)
    runs = f"{ends[best].n} run{'s' * (ends[best].n != 1)}"
    return (
        f"{best} ends lowest, at a validation loss of {words.plain(ends[best].mean, 3)} ({runs})."
    )


def picture(number: int, against: str) -> str:
    """The path of a bench's curves, relative to results/."""
    return f"pictures/your-runs-{number}-{against}.svg"


def table(bench: Bench) -> Table:
    """One row per group: its results, the difference from AdamW, and its costs."""
    unit = "images" if bench.record.get("images_per_step") else "tokens"
    heads = [Cell("optimizer"), Cell("test loss"), Cell("difference", "to AdamW")]
    heads += [Cell("validation loss"), Cell(f"{unit}/s"), Cell("share", "of a step")]
    heads += [Cell("state"), Cell("peak", "memory")]
    return Table(heads, [_row(one, bench) for one in bench.groups])


def _row(one: Group, bench: Bench) -> list[Cell]:
    test, validation = (mean(one, key) for key in ("test_loss", "val_loss"))
    lost = len(one.runs) - sum(run.record["status"] == "finished" for run in one.runs)
    diverged = f"; {lost} diverged" if lost else ""
    rate = throughput(one)
    seeds = "baseline" if one is bench.baseline else ""
    return [
        Cell(one.name, seeds),
        Cell(words.span(test)[0], words.span(test)[1] + diverged),
        difference(one, bench),
        Cell(words.span(validation)[0]),
        NONE if rate is None else Cell(short(rate)),
        Cell(words.percent(one.median("optimizer_share"))),
        Cell(megabytes(one.median("optimizer_state_bytes", "total"))),
        Cell(megabytes(one.median("peak_memory_bytes"))),
    ]


def difference(one: Group, bench: Bench) -> Cell:
    """The difference from the baseline, or why there is none."""
    if one is bench.baseline:
        return NONE
    if one.difference is None:
        return Cell("–", "no seed in common" if bench.baseline else "no AdamW")
    estimate = one.difference
    tone = "good" if estimate.high < 0 else "bad" if estimate.low > 0 else "unknown"
    return Cell(*words.span(estimate, "+"), tone)

"""The attention logits of an arm's runs, from the evaluations in their records."""

from collections.abc import Iterable

from bench.records.archive import Run
from bench.studies import stats
from bench.studies.results import Results
from bench.verdicts.finding import Finding


def largest_logit(
    results: Results, *, experiment: str, arm: str, conditions: list[str] | None = None
) -> list[Finding]:
    """The largest attention logit of all layers and evaluations: mean over seeds and its interval.

    One batch is read at each evaluation (bench/training/attention.py).
    """
    found = []
    for one in results.comparisons(experiment, conditions):
        where = f"{arm} ({experiment}, {one.condition})"
        own = one.arm(arm)
        runs = [run for run in own.runs if in_curve(run.record)] if own else []
        if len(runs) < 2:
            missing = f"attention logits of two runs of {arm}, {len(runs)} so far, of "
            found.append(Finding(where, missing=f"{missing}experiment={experiment}"))
            continue
        of = stats.mean_interval(largest(runs))
        files = sorted(results.place(run.file) for run in runs)
        numbers = of.mean, of.low, of.high, of.n
        found.append(Finding(where, *numbers, unit="largest attention logit", records=files))
    return found


def largest(runs: Iterable[Run]) -> list[float]:
    """The largest logit of each run that has any."""
    return [max(of) for run in runs if (of := in_curve(run.record))]


def in_curve(record: dict) -> list[float]:
    """All logits of a record's curve that are numbers; older records have none."""
    lines = (line.get("attention_max_logit") or [] for line in record["curve"])
    return [value for line in lines for value in line if value is not None]

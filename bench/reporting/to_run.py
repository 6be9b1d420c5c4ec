"""What an experiment would still take: runs, and hours at the pace of the records there are."""

import statistics
from collections import Counter
from typing import NamedTuple

from bench.display.numbers import duration
from bench.records.archive import Archive
from bench.studies import study
from bench.studies.study import FINAL, Study


class Pace(NamedTuple):
    """Seconds of a run, by the median over so many runs of its model."""

    seconds: float
    runs: int
    model: str


def line(one: Study, archive: Archive) -> str:
    """The runs that have no record, their hours, and what other experiment comes first."""
    said = [f"{sum(missing(one, archive).values()):,} runs"]
    if known := hours(one, archive):
        whole, pace = known
        said[0] += (
            f", about {duration(whole)} one after the other at the pace of {pace.runs} published "
            f"runs of {pace.model} (more where an optimizer's step takes longer)"
        )
    said += [f"before them {count:,} runs of {name}" for name, count in first(one, archive)]
    return "; ".join(said)


def row(one: Study, archive: Archive) -> str:
    """The runs of an arm with searches of its own, and their hours at AdamW's pace."""
    by_arm: Counter[tuple[str, str]] = Counter()
    for (_, condition, arm), count in one.counts().items():
        by_arm[condition, arm] += count
    (condition, _), runs = by_arm.most_common(1)[0]
    pace = paced(words(one, condition, one.baseline), archive)
    return f"{runs} runs" + (f", about {duration(runs * pace.seconds)}" if pace else "")


def missing(one: Study, archive: Archive) -> dict[tuple[str, str, str], int]:
    """By stage, condition and arm the declared runs without a record."""
    there = Counter((run.stage, run.condition, run.arm) for run in archive.of(one.name))
    return {key: max(0, count - there[key]) for key, count in one.counts().items()}


def hours(one: Study, archive: Archive) -> tuple[float, Pace] | None:
    """The seconds of all missing runs, and the pace of the last one; None if for one of them there
    is no record of its model to go by."""
    whole, pace = 0.0, None
    for (_, condition, arm), count in missing(one, archive).items():
        pace = paced(words(one, condition, arm), archive)
        if pace is None:
            return None
        whole += count * pace.seconds
    return None if pace is None else (whole, pace)


def words(one: Study, condition: str, arm: str) -> dict[str, str]:
    """The settings of an arm under a condition."""
    return dict(w.split("=", 1) for w in (*one.conditions[condition], *one.arms[arm]) if "=" in w)


def paced(asked: dict[str, str], archive: Archive) -> Pace | None:
    """The pace of finished runs of the model asked for: at its batch, else of all, by the token."""
    batch = [asked.get(f"train.{key}", "") for key in ("steps", "batch_size", "sequence_length")]
    if not all(text.isdecimal() for text in batch):
        return None
    steps, sequences, length = map(int, batch)
    found = {
        run.file: run.record
        for run in archive.runs
        if run.record["status"] == "finished" and run.record["model"] == asked.get("model")
        if run.record.get("train_seconds") and run.record.get("tokens_per_step")
    }
    alike = [one for one in found.values() if one["tokens_per_step"] == sequences * length]
    each = [
        one["train_seconds"] / one["steps"] / one["tokens_per_step"]
        for one in alike or found.values()
    ]
    if not each:
        return None
    return Pace(steps * sequences * length * statistics.median(each), len(each), asked["model"])


def first(one: Study, archive: Archive) -> list[tuple[str, int]]:
    """Conditions of other experiments whose trials are borrowed, with the runs they lack."""
    if one.search is None or not one.search.takes:
        return []
    found = []
    for source in dict.fromkeys(carried.source for carried in one.search.carry.values()):
        name, condition = source.split("/")
        lacking = sum(
            count
            for (stage, under, arm), count in missing(study.load(name), archive).items()
            if under == condition and stage != FINAL and arm in one.search.takes.values()
        )
        found += [(f"experiment={name} condition={condition}", lacking)] if lacking else []
    return found

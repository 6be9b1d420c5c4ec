"""Runs outside experiments: which are alike except for the seed, and which can be compared.

Two runs can be compared if model, data, steps, batch, precision, device and mathematics are the
same. They then differ only in the optimizer's settings; they pair if the seed is the same, too.
"""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.records import archive
from bench.records.archive import Run
from bench.studies import stats
from bench.studies.differing import named, settings
from bench.studies.stats import Estimate


def conditions(record: dict[str, Any]) -> dict[str, Any]:
    """What the runs of a comparison have in common, by name."""
    config = record["config"]
    train = config.get("train") or {}
    return {
        "model": config.get("model") or record["model"],
        "data": config.get("data") or record.get("data"),
        "train.steps": train.get("steps"),
        "train.time_limit": train.get("time_limit"),
        "batch": batch(record),
        "train.sequence_length": train.get("sequence_length"),
        **archive.setup(record)._asdict(),
    }


def batch(record: dict[str, Any]) -> int | None:
    """Tokens or images per step."""
    return record.get("tokens_per_step") or record.get("images_per_step")


def same(value: Any) -> str:
    """Settings as text, equal for equal settings; a null setting counts as missing."""
    return json.dumps(_without_null(value), sort_keys=True)


def _without_null(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_null(item) for key, item in value.items() if item is not None}


# groups and their differences ---------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    name: its optimizer, with what distinguishes it from others of that optimizer; difference: its
    test loss minus the baseline's, paired by seed; None if no seed pairs.
    """

    name: str
    runs: list[Run]
    difference: Estimate | None = None

    @property
    def seeds(self) -> list[int]:
        return sorted({run.record["seed"] for run in self.runs})

    @property
    def optimizer(self) -> str:
        return self.runs[0].record["optimizer"]

    def values(self, key: str) -> dict[int, float]:
        """A value of the finished runs, by seed."""
        found = by_key(self.runs, key)
        return {seed: value for (_, seed), value in found.items()}

    def median(self, key: str, *inner: str) -> float | None:
        """The median of a number in the records, or None."""
        found = (_inside(run.record, (key, *inner)) for run in self.runs)
        known = [value for value in found if value is not None]
        return statistics.median(known) if known else None


@dataclass(frozen=True)
class Bench:
    """Comparable groups; baseline: AdamW's best by validation loss, None without one."""

    groups: list[Group]
    baseline: Group | None

    @property
    def record(self) -> dict[str, Any]:
        """One of the records, for what they all share."""
        return self.groups[0].runs[0].record


def benches(runs: Iterable[Run], baseline: str = "adamw") -> list[Bench]:
    """The runs by common conditions, in order of model, data and steps; the baseline's first."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(same(conditions(run.record)), []).append(run)
    found = [_bench(own, baseline) for own in together.values()]
    return sorted(found, key=lambda one: _order(one.record))


def _order(record: dict[str, Any]) -> tuple:
    return (record["model"], str(record.get("data")), same(conditions(record)))


def _bench(runs: list[Run], baseline: str) -> Bench:
    alike: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.record["seed"], run.record["cell"])):
        alike.setdefault(same([run.record["optimizer"], settings(run.record)]), []).append(run)
    ordered = sorted(alike.values(), key=lambda own: _rank(own[0].record, baseline))
    names = named([own[0].record for own in ordered])
    groups = [Group(name, own) for name, own in zip(names, ordered, strict=True)]
    ours = [one for one in groups if one.optimizer == baseline and one.values("val_loss")]
    best = min(ours, key=lambda g: statistics.mean(g.values("val_loss").values()), default=None)
    return Bench([_against(one, best) for one in groups], best)


def _rank(record: dict[str, Any], baseline: str) -> tuple:
    optimizer = record["optimizer"]
    return (optimizer != baseline, optimizer, record["lr_scale"], same(settings(record)))


def _against(one: Group, baseline: Group | None) -> Group:
    if baseline is None or one.runs is baseline.runs:
        return one
    paired = stats.paired(one.values("test_loss"), baseline.values("test_loss"))
    return Group(one.name, one.runs, stats.mean_interval(paired) if len(paired) else None)


def by_key(runs: Iterable[Run], key: str) -> dict[tuple[str, int], float]:
    """A value of the finished runs, by their common settings and the seed; the mean of several."""
    found: dict[tuple[str, int], list[float]] = {}
    for one in (run.record for run in runs):
        value = one.get(key)
        if one["status"] == "finished" and value is not None and math.isfinite(value):
            found.setdefault((same(conditions(one)), one["seed"]), []).append(value)
    return {place: statistics.mean(values) for place, values in found.items()}


def _inside(value: Any, keys: tuple[str, ...]) -> float | None:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if value is not None and math.isfinite(value) else None

"""All records of results/: reads and checks them, and assigns them to their experiments."""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.records import layouts, mathematics, shape
from bench.records.initial import WEIGHTS
from bench.records.record import PART
from bench.settings.schema import Settings


class Setup(NamedTuple):
    """What runs must share to be comparable: precision, type of device, mathematics."""

    precision: str | None
    device: str | None
    mathematics: int

    def __str__(self) -> str:
        return f"{self.precision} on {self.device}, mathematics {self.mathematics}"


def setup(record: dict[str, Any]) -> Setup:
    device = (record["config"].get("train") or {}).get("device")
    return Setup(record["precision"], device, mathematics.of(record))


def planned(settings: Settings) -> Setup:
    """The setup that the record of a run with these settings will have."""
    return Setup(settings.train.precision, settings.train.device, mathematics.MATHEMATICS)


class Run(NamedTuple):
    """One record as a part of one experiment; a record can be part of several experiments."""

    experiment: str | None
    stage: str | None
    condition: str | None
    arm: str | None
    record: dict[str, Any]
    file: Path


@dataclass(frozen=True)
class Archive:
    """runs: those of complete records; left_out: other files, each with the reason."""

    runs: list[Run]
    left_out: list[tuple[Path, str]]

    def of(
        self, experiment: str, stage: str | None = None, condition: str | None = None
    ) -> list[Run]:
        """The runs of an experiment; only those of one stage and one condition, if given."""
        return [
            run
            for run in self.runs
            if run.experiment == experiment
            and stage in (None, run.stage)
            and condition in (None, run.condition)
        ]


def read(results: Path, published: bool = False) -> Archive:
    """The records in records/ and, unless published=True, those in runs/.

    A cell in both counts once for each part of an experiment, as published. Files that are broken,
    incomplete, duplicates, or no record of this suite are left out and listed.
    """
    there = sorted((results / "records").glob("*/*.json"))
    if not published:
        there += sorted((results / "runs").glob("*/record.json"))
    runs: dict[tuple, Run] = {}
    left_out = []
    for file in there:
        one = load(file)
        if isinstance(one, str):
            left_out.append((file, one))
            continue
        parts, fault = _parts(one, file)
        if fault:
            left_out.append((file.with_name("part_of.json"), fault))
        for part in ({key: part.get(key) for key in PART} for part in parts):
            key = (one["cell"], *part.values())
            if key not in runs:
                runs[key] = Run(**part, record=one, file=file)
            elif runs[key].file.parent.parent == file.parent.parent:
                left_out.append((file, f"duplicate: the same cell as {runs[key].file.name}"))
    return Archive(list(runs.values()), left_out)


def load(file: Path) -> dict[str, Any] | str:
    """The record of a run that has ended, or why the file holds none."""
    return shape.read(file, layouts.record)


def ended(folder: Path) -> dict[str, Any] | str:
    """The record of a folder whose run has ended, or why there is none: "" without a file."""
    file = folder / "record.json"
    one = load(file) if file.exists() else ""
    if isinstance(one, dict) and one["cell"] != folder.name:
        return f"of another cell: {one['cell']}"
    return one


def lacks_weights(settings: Settings, folder: Path, record: dict[str, Any] | str) -> bool:
    """Whether a run has finished, by its record, and its folder is without the weights that these
    settings ask for."""
    finished = isinstance(record, dict) and record["status"] == "finished"
    return settings.train.save_weights and finished and not (folder / WEIGHTS).exists()


def _parts(one: dict[str, Any], file: Path) -> tuple[list[dict[str, Any]], str | None]:
    """The experiment parts that a record belongs to: published records state them; for others the
    run's folder does. Also why the folder's information cannot be used; the record's own then
    counts.
    """
    beside = file.with_name("part_of.json")
    if one.get("part_of") or not beside.exists():
        return one.get("part_of") or [one], None
    found = shape.read(beside, layouts.part_of)
    return ([one], found) if isinstance(found, str) else (found or [one], None)


def by_arm(runs: Iterable[Run]) -> dict[str | None, list[Run]]:
    """Runs by arm, ordered by seed and rate; None: runs that are part of no experiment."""
    found: dict[str | None, list[Run]] = {}
    for run in sorted(runs, key=lambda r: (r.record["seed"], r.record["lr_scale"])):
        found.setdefault(run.arm, []).append(run)
    return found


def alike(runs: list[Run], like: Setup | None = None) -> tuple[list[Run], list[str]]:
    """The runs that may be compared with each other, and text on what is left out.

    like: the setup that they must have; the default is the setup of most runs, or in a tie the one
    with the latest mathematics. Within an arm the dtype of the orthogonalization must be the same,
    too: `orthogonalizer.dtype=auto` chooses it by the machine.
    """
    counts = Counter(setup(run.record) for run in runs)
    if not counts:
        return [], []
    like = like or max(counts, key=lambda one: (counts[one], one.mathematics, str(one)))
    same = [run for run in runs if setup(run.record) == like]
    left_out = [
        f"{many} run{'s' * (many > 1)} of {one} left out: here {like}"
        for one, many in sorted(counts.items(), key=str)
        if one != like
    ]
    kept = []
    for arm, own in by_arm(same).items():
        dtypes = Counter(orthogonalized_in(run.record) for run in own)
        most = max(dtypes, key=lambda dtype: (dtypes[dtype], str(dtype)))
        kept += [run for run in own if orthogonalized_in(run.record) == most]
        left_out += [
            f"{many} run{'s' * (many > 1)} of {arm}, orthogonalizer.dtype={dtype}, left out: "
            f"here {most}"
            for dtype, many in sorted(dtypes.items(), key=str)
            if dtype != most
        ]
    return kept, left_out


def orthogonalized_in(record: dict[str, Any]) -> str | None:
    """The dtype of Muon's iteration; None for an optimizer without our iteration."""
    rules = (record["config"].get("optimizer") or {}).get("roles") or {}
    found = (rule.get("orthogonalizer") for rule in rules.values())
    return next((block.get("dtype") for block in found if block), None)


def relative_times(runs: Iterable[Run]) -> dict[str | None, float]:
    """Step time relative to AdamW's, by arm: the median over runs of 1 + overhead."""
    return {
        arm: statistics.median(measured)
        for arm, own in by_arm(runs).items()
        if (measured := [1 + o["value"] for r in own if (o := r.record.get("overhead"))])
    }

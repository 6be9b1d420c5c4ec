"""The results folder: records as comparisons, and files of the laboratory and step benchmark."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.records import archive, layouts, shape
from bench.records.archive import Archive
from bench.studies import comparison, lines, study
from bench.studies.comparison import Arm, Comparison

# The laboratory's checks: on random matrices, on momenta of runs.
CHECKS = ("ortho/checks.json", "ortho/checks-momentum.json")


class Results:
    """The results folder, each part read once."""

    def __init__(self, folder: Path, published: bool = False) -> None:
        self.folder = folder
        self.archive: Archive = archive.read(folder, published)
        self.lines, self.broken_lines = lines.read(folder)
        self.compare = cache(self._compare)
        self.read = cache(self._read)

    def _compare(
        self, experiment: str, condition: str, against: str | None, device: str | None
    ) -> Comparison:
        declared = study.load(experiment)
        declared = replace(declared, baseline=against or declared.baseline)
        found = comparison.compare(self.archive, declared, condition, device=device)
        return lines.beside(found, self.lines)

    def _read(self, name: str) -> dict[str, Any] | str | None:
        """A file of the laboratory or step benchmark, or why it is invalid; None without one."""
        kind = layouts.step if name.startswith("steps/") else layouts.checks
        file = self.folder / name
        return shape.read(file, kind) if file.exists() else None

    def json(self, name: str) -> dict[str, Any] | None:
        """The same; None if there is no usable file."""
        found = self.read(name)
        return found if isinstance(found, dict) else None

    def checks(self) -> dict[str, tuple[dict[str, Any], str]]:
        """The laboratory's checks by name, each with its file."""
        return {
            one["name"]: (one, file)
            for file in CHECKS
            for one in (self.json(file) or {"checks": []})["checks"]
        }

    def comparisons(
        self, experiment: str, conditions: list[str] | None, against: str | None = None
    ) -> list[Comparison]:
        """The comparisons under each condition, or under those named; with the baseline, or with
        the arm `against`.

        There is one for each kind of device with runs: these are not compared with each other, and
        none hides another.
        """
        named = conditions or list(study.load(experiment).conditions)
        return [
            self.compare(experiment, condition, against, device)
            for condition in named
            for device in self.devices(experiment, condition)
        ]

    def devices(self, experiment: str, condition: str) -> Sequence[str | None]:
        """The kinds of device with runs if there are several; otherwise one unnamed kind."""
        runs = self.archive.of(experiment, condition=condition)
        found = {str(archive.setup(run.record).device) for run in runs}
        return sorted(found) if len(found) > 1 else [None]

    def files(self, arms: Iterable[Arm]) -> list[str]:
        found = {run.file for arm in arms for run in arm.runs}
        return sorted(map(self.place, found))

    def place(self, file: Path) -> str:
        """The path of a file relative to the folder."""
        return file.relative_to(self.folder).as_posix()

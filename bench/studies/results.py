"""The results folder: records as comparisons, and files of laboratory and step benchmark."""

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.records import archive
from bench.records.archive import Archive
from bench.studies import comparison, study
from bench.studies.comparison import Arm, Comparison


class Results:
    """The results folder, each part read once."""

    def __init__(self, folder: Path, published: bool = False) -> None:
        self.folder = folder
        self.archive: Archive = archive.read(folder, published)
        self.compare = cache(self._compare)
        self.json = cache(self._json)

    def _compare(self, experiment: str, condition: str, against: str | None) -> Comparison:
        declared = study.load(experiment)
        declared = replace(declared, baseline=against or declared.baseline)
        return comparison.compare(self.archive, declared, condition)

    def _json(self, name: str) -> Any:
        """A file of the laboratory or the step benchmark; None where there is none."""
        try:
            return json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return None

    def comparisons(
        self, experiment: str, conditions: list[str] | None, against: str | None = None
    ) -> list[Comparison]:
        """Under each condition, or those named; with the baseline, or the arm `against`."""
        named = conditions or list(study.load(experiment).conditions)
        return [self.compare(experiment, condition, against) for condition in named]

    def files(self, arms: Iterable[Arm]) -> list[str]:
        found = {run.file for arm in arms for run in arm.runs}
        return sorted(map(self.place, found))

    def place(self, file: Path) -> str:
        """Where a file is below the folder."""
        return file.relative_to(self.folder).as_posix()

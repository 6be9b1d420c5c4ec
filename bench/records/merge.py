"""Copies runs from another machine's results folder; checks them first and overwrites nothing.

A run's folder is copied completely or not at all: first to a folder that no reader looks into, then
it gets its name in one step. Existing files stay as they are.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bench.records import archive, files, layouts, record, shape
from bench.settings.errors import UserError

FILES = ("record.json", "part_of.json", "metrics.jsonl", "config.yaml", "routing.json")
ASIDE = ".merging"  # inside runs/: archive.read looks for runs/*/record.json, one level up
COPIED, SAME, DIFFERENT = "copied", "here already", "different"
NOT_ENDED, REFUSED = "not ended", "refused"


@dataclass(frozen=True)
class Outcome:
    """What was done with a run: one of the words above, and why."""

    cell: str
    how: str
    why: str = ""


def merge(source: Path, results: Path) -> Iterator[Outcome]:
    """Copy the complete records of a results folder (or its runs/) to results/runs, one by one.

    A run that is already here stays unchanged; the outcome says whether the other one is the same.
    Raises UserError if `source` has no runs or is this folder, OSError if a run cannot be written.
    """
    runs, target = _runs_of(source), results / "runs"
    if target.exists() and runs.samefile(target):
        raise UserError(f"merge={source}: is this results folder itself; name another machine's")
    aside = target / ASIDE
    shutil.rmtree(aside, ignore_errors=True)  # left by a merge that was killed
    try:
        for folder in sorted(runs.iterdir()):
            if folder.is_dir() and not folder.name.startswith("."):
                yield _merge_one(folder, target / folder.name, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _runs_of(source: Path) -> Path:
    if not source.is_dir():
        raise UserError(f"merge={source}: no such folder; needs one with runs/")
    for runs in (source / "runs", source):
        if runs.is_dir() and any(runs.glob("*/record.json")):
            return runs
    raise UserError(f"merge={source}: no record of a run there; needs a folder with runs/")


def _merge_one(folder: Path, target: Path, aside: Path) -> Outcome:
    cell = folder.name
    one = archive.ended(folder)
    if isinstance(one, str):
        not_ended = one == "" or one.startswith("not ended")
        return Outcome(cell, NOT_ENDED if not_ended else REFUSED, one or "no record yet")
    if fault := _fault(folder):
        return Outcome(cell, REFUSED, fault)
    if target.exists():
        why = _difference(folder, target)
        return Outcome(cell, DIFFERENT if why else SAME, why)
    copy = aside / cell
    copy.mkdir(parents=True)
    for name in FILES:
        if (folder / name).exists():
            with files.naming(copy / name):
                _copy(folder / name, copy / name)
    try:
        copy.rename(target)
    except OSError:
        if not target.exists():
            raise
        return Outcome(cell, DIFFERENT, "another process has just begun it here")
    return Outcome(cell, COPIED)


def _copy(file: Path, copy: Path) -> None:
    with file.open("rb") as read, copy.open("wb") as written:
        shutil.copyfileobj(read, written)
        written.flush()
        os.fsync(written.fileno())


def _fault(folder: Path) -> str | None:
    """What is wrong with the files beside a complete record; None if nothing is."""
    for name in FILES[1:]:
        file = folder / name
        try:
            broken = file.exists() and _broken(file)
        except OSError as error:
            return f"{name}: cannot be read: {error.strerror}"
        if broken:
            return f"{name}: {broken}"
    return None


def _broken(file: Path) -> str | None:
    """Why a file of a run is not valid for its kind; None if it is. Raises OSError."""
    if file.name == "part_of.json":
        found = shape.read(file, layouts.part_of)
        return found if isinstance(found, str) else None
    if file.name == "metrics.jsonl":
        whole = len(record.lines(file)) == len(file.read_bytes().splitlines())
        return None if whole else "broken: not a step a line"
    if file.name == "routing.json":
        found = shape.read(file, shape.each(shape.mapping({"role": shape.text})))
        return found if isinstance(found, str) else None
    try:
        there: Any = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError):
        there = None
    return None if isinstance(there, dict) and "seed" in there else "broken: no settings"


def _difference(folder: Path, target: Path) -> str:
    """How the run here differs from the other one; "" for the same run or the same files."""
    one = archive.ended(target)
    if isinstance(one, str):
        return "a run here that has not ended" if not one else f"the run here: {one}"
    for name in FILES:
        ours, theirs = target / name, folder / name
        if ours.exists() and theirs.exists() and _content(ours) != _content(theirs):
            return f"{name} is another one here; both stay as they are"
    return ""


def _content(file: Path) -> Any:
    """JSON files by their values, other files by their bytes."""
    if file.suffix == ".json":
        with contextlib.suppress(ValueError):
            return files.read_json(file)
    return file.read_bytes()


def counted(outcomes: list[Outcome]) -> str:
    """3 copied, 1 here already, 0 different, 1 refused, 2 not ended"""
    kinds = (COPIED, SAME, DIFFERENT, REFUSED, NOT_ENDED)
    return ", ".join(f"{sum(one.how == kind for one in outcomes)} {kind}" for kind in kinds)

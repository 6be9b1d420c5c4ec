"""Decides which process trains a cell: none if it has a record, and never two at a time."""

import math
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.records import archive, origin, record
from bench.records.initial import WEIGHTS
from bench.records.owner import Held, Ownership
from bench.settings.schema import Settings
from bench.training import tables
from bench.training.launching import Outcome

Say = Callable[[str], None]
SHOWN = ("status", "val_loss", "test_loss", "train_seconds")
LEFT_BY_A_RUN = (
    *("record.json", "metrics.jsonl", "routing.json"),
    *("config.yaml", "hydra.yaml", "overrides.yaml", WEIGHTS),
)


def silent(line: str) -> None:
    pass


def claim(
    settings: Settings, cell: str, owner: Ownership, held: ExitStack, say: Say, tell: Say
) -> Outcome | None:
    """Hold the cell for training; or return its outcome if there is nothing to train.

    tell: prints lines that a sweep does not need.
    """
    if found := skip(settings, cell, owner.folder, tell):
        return found
    try:
        held.enter_context(owner)
    except Held as other:
        tell(f"{cell}: running on {other}")
        return {"how": "running"}
    done = archive.ended(owner.folder)
    if settings.rerun or archive.lacks_weights(settings, owner.folder, done):
        for name in (*LEFT_BY_A_RUN, "checkpoint", "momentum"):
            remove(owner.folder / name)
    elif found := skip(settings, cell, owner.folder, tell):  # ended since the first look
        return found
    goes_on = (owner.folder / "checkpoint").exists()
    record.join(owner.folder, settings, begins=not goes_on)
    tell(cell)
    put_aside(owner.folder, say)
    return None


def put_aside(folder: Path, say: Callable[[str], None]) -> None:
    """Move aside a record.json that does not belong to this cell, and say why; nothing is lost."""
    reason = archive.ended(folder)
    if isinstance(reason, str) and reason and not reason.startswith("not ended"):
        (folder / "record.json").replace(folder / "record.left_out.json")
        say(f"record.json is left out ({reason}); it is kept as record.left_out.json")


def skip(settings: Settings, cell: str, folder: Path, say: Say) -> Outcome | None:
    """The outcome of a cell that need not be trained; None for others."""
    if settings.rerun:
        return None
    done = archive.ended(folder)
    if isinstance(done, str):
        return None
    if archive.lacks_weights(settings, folder, done):
        say(f"{cell}: {done['status']} before without its weights, which are asked for: again")
        return None
    record.join(folder, settings)
    if (done["config"].get("train") or {}).get("keep_checkpoint") is False:
        # Left by a run that was killed after writing its record and before its end.
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    say(f"{cell}: {skipped(done)}")
    return {"how": "skipped", "record": brief(done), "loss": searched(done)}


def remove(path: Path) -> None:
    """Remove a file or a folder, which another command may be removing at the same time."""
    while path.is_dir():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def skipped(done: dict[str, Any]) -> str:
    commit = done["environment"].get("commit")
    other = commit and commit != origin.commit()
    by = f" by commit {commit[:10]}" if other else ""
    return f"{done['status']} before{by}, skipped (rerun=true trains it again)"


def brief(done: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that a sweep shows in its lines and its list."""
    found = {key: done[key] for key in SHOWN if done.get(key) is not None}
    return found | {"train_loss": tables.last_training_loss(done)}


def searched(facts: dict[str, Any]) -> float | None:
    """The value for a sweeper that searches: the validation loss, or None if the run failed.

    A diverged run is a valid result, the worst one: infinity.
    """
    return {"finished": facts["val_loss"], "diverged": math.inf}.get(facts["status"])

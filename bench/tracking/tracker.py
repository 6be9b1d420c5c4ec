"""Show a run in Weights & Biases: one W&B run per cell, offline unless asked otherwise.

The record is the truth and W&B a view of it, so trouble here is one warning and never an error.
`wandb/logged.jsonl` has a line for each record that W&B has whole, for scripts/wandb_upload.py.
"""

import contextlib
import json
import numbers
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

INIT_SECONDS = 15.0  # how long an online run may take to start
FINISH_SECONDS = 60.0  # how long the end of an online run may wait for uploads
UNITS = ("tokens", "images")
AXES = ("step", "seconds", *UNITS)
NOT_SUMMARY = ("config", "environment")  # W&B has them as the run's configuration
LOGGED = "logged.jsonl"


class Tracker:
    """One run's view in W&B, or nothing at all."""

    def __init__(
        self,
        run: Any = None,
        warn: Callable[[str], None] = print,
        units_per_step: dict[str, int] | None = None,
    ):
        """`run` is a W&B run, or None to track nothing; units_per_step: of a chart's axes."""
        self._run = run
        self._warn = warn
        self._units_per_step = units_per_step or {}

    def log(self, line: dict) -> None:
        """Send one line of metrics.jsonl; nested values get names such as `lr/hidden`.

        A chart finds its two values on one line only, so evaluations get their tokens (images) too.
        """
        units = {unit: n * line["step"] for unit, n in self._units_per_step.items()}
        self._attempt(lambda run: run.log(units | _flat(line)))

    def finish(self, summary: dict, failed: bool = False) -> None:
        """Send the record's single values as the run's summary, close the run and note it."""
        kept = {key: value for key, value in summary.items() if key not in NOT_SUMMARY}
        self._attempt(lambda run: run.summary.update(_flat(kept)))
        self._attempt(lambda run: run.finish(exit_code=int(failed)))
        if summary and not failed:
            self._attempt(lambda run: _note(run, summary))
        self._run = None

    def _attempt(self, action: Callable[[Any], None]) -> None:
        """Do it, or give one warning and track nothing from then on."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            _give_up(error, self._warn)


def start(block: dict, record: dict, folder: Path, warn: Callable[[str], None]) -> Tracker:
    """A tracker for one cell, as the `tracker` settings say.

    block: name, project, mode and, where it is not the account's own, entity. record: what is known
    of it before the run. Files land in `folder/wandb`. A resumed cell is a new W&B run: log the
    kept lines of its metrics.jsonl first, and it is complete by itself. Never raises: trouble is
    one line to `warn`.
    """
    if block["name"] == "none":
        return Tracker()
    units = {unit: record[f"{unit}_per_step"] for unit in UNITS if f"{unit}_per_step" in record}
    try:
        return Tracker(_start_run(block, record, folder), warn, units)
    except Exception as error:
        _give_up(error, warn)
        return Tracker()


def identity(record: dict) -> tuple:
    """What tells a record from another one of its cell, trained again with rerun=true."""
    return record["cell"], record["train_seconds"]


def logged(folder: Path, project: str, entity: str | None) -> dict[tuple, dict]:
    """What `folder/wandb` notes as logged to this project, by the record's identity.

    entity: a user or team; None stands for whichever it was.
    """
    file = folder / "wandb" / LOGGED
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):  # cut by a kill
            note = json.loads(line)
            if note["project"] == project and entity in (None, note["entity"]):
                found[identity(note)] = note
    return found


def _start_run(block: dict, record: dict, folder: Path) -> Any:
    if block["mode"] == "offline":  # or W&B's process sends measurements of itself all the same
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb  # a second of start-up: only where it is used

    (folder / "wandb").mkdir(parents=True, exist_ok=True)  # or W&B would quietly choose /tmp
    settings = wandb.Settings(
        silent=True,  # no lines on the screen, and no question for a key
        console="off",
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,  # or a run that is not whole in W&B would pass for logged
        # The record has the machine, the commit and the versions; sampling would cost time.
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    wandb.setup(settings=settings)  # silent from here on, also while it looks for a key
    run = wandb.init(
        project=block["project"],
        entity=block.get("entity"),
        mode=block["mode"],
        group=record["experiment"],
        name=record["cell"],
        config=_config(record),
        dir=str(folder),
        settings=settings,
        reinit="create_new",  # a sweep trains many cells in one process
    )
    for axis in AXES:
        run.define_metric(axis, hidden=True)  # an axis to choose, not a chart of its own
    run.define_metric("*", step_metric="step")
    return run


def _config(record: dict) -> dict:
    """The settings, the machine, and which `qkv` the optimizer used, as not every one has a use."""
    return record["config"] | {
        "environment": record["environment"],
        "qkv_used": record["qkv"] or "none",
    }


def _note(run: Any, record: dict) -> None:
    """Note that W&B has this record whole."""
    cell, seconds = identity(record)
    where = {"project": run.project, "entity": run.entity, "mode": run.settings.mode}
    note = {"cell": cell, "train_seconds": seconds, "run": run.id, **where}
    with (Path(run.settings.wandb_dir) / LOGGED).open("a") as file:
        file.write(json.dumps(note) + "\n")


def _flat(values: dict, prefix: str = "") -> dict[str, Any]:
    """Numbers, words and truth values by name, `a/b` for b inside a; lists and None left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, numbers.Number | str | bool):
            flat[f"{prefix}{key}"] = value
    return flat


def _give_up(error: Exception, warn: Callable[[str], None]) -> None:
    """One warning; and W&B's own process goes, or a broken one would fail the cells to come."""
    if isinstance(error, ModuleNotFoundError) and error.name == "wandb":
        return warn("W&B is off for this run: the package wandb is not installed")
    reason = " ".join(str(error).split()) or type(error).__name__
    warn(f"W&B is off for this run: {reason[:200]}")
    with contextlib.suppress(Exception, SystemExit):
        sys.modules["wandb"].teardown()

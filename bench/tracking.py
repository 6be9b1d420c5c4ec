"""Show a run in Weights & Biases: one W&B run per cell, offline unless asked otherwise.

The record is the truth and W&B a view of it, so trouble here is one warning and never an error.
"""

import contextlib
import numbers
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

INIT_SECONDS = 15.0  # how long an online run may take to start
FINISH_SECONDS = 60.0  # how long the end of an online run may wait for uploads
AXES = ("step", "seconds", "tokens", "images")
NOT_SUMMARY = ("config", "environment")  # W&B has the first as the run's configuration


class Tracker:
    """One run's view in W&B, or nothing at all."""

    def __init__(self, run: Any = None, warn: Callable[[str], None] = print):
        """`run` is a W&B run, or None to track nothing."""
        self._run = run
        self._warn = warn

    def log(self, line: dict) -> None:
        """Send one line of metrics.jsonl; nested values get names such as `lr/hidden`."""
        if self._run is not None:
            self._attempt(lambda run: run.log(_flat(line)))

    def finish(self, summary: dict, failed: bool = False) -> None:
        """Send the record's single values as the run's summary and close the run."""
        if self._run is None:
            return
        kept = {key: value for key, value in summary.items() if key not in NOT_SUMMARY}
        self._attempt(lambda run: run.summary.update(_flat(kept)))
        if self._run is not None:
            self._attempt(lambda run: run.finish(exit_code=int(failed)))
        self._run = None

    def _attempt(self, action: Callable[[Any], None]) -> None:
        """Do it, or give one warning and track nothing from then on."""
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            _give_up(error, self._warn)


def start(
    block: dict,
    *,
    cell: str,
    experiment: str | None,
    config: dict,
    folder: Path,
    warn: Callable[[str], None],
) -> Tracker:
    """A tracker for one cell, as the `tracker` settings say.

    Files land in `folder/wandb`. A resumed cell is a new W&B run: log the kept lines of its
    metrics.jsonl first, and it is complete by itself. Never raises: trouble is one line to `warn`.
    """
    if block["name"] == "none":
        return Tracker()
    try:
        return Tracker(_start_run(block, cell, experiment, config, folder), warn)
    except Exception as error:
        _give_up(error, warn)
        return Tracker()


def _start_run(block: dict, cell: str, experiment: str | None, config: dict, folder: Path) -> Any:
    import wandb  # a second of start-up: only where it is used

    (folder / "wandb").mkdir(parents=True, exist_ok=True)  # or W&B would quietly choose /tmp
    settings = wandb.Settings(
        silent=True,  # no lines on the screen, and no question for a key
        console="off",
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
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
        mode=block["mode"],
        group=experiment,
        name=cell,
        config=config,
        dir=str(folder),
        settings=settings,
        reinit="create_new",  # a sweep trains many cells in one process
    )
    for axis in AXES:
        run.define_metric(axis, hidden=True)  # an axis to choose, not a chart of its own
    run.define_metric("*", step_metric="step")
    return run


def _flat(values: dict, prefix: str = "") -> dict[str, Any]:
    """Numbers, words and truth values by name, `a/b` for b inside a; lists and None left out."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, numbers.Number | str | bool):
            flat[f"{prefix}{key}"] = value
    return flat


def _give_up(error: Exception, warn: Callable[[str], None]) -> None:
    """One warning; and W&B's own process goes, or a broken one would fail the cells to come."""
    reason = " ".join(str(error).split()) or type(error).__name__
    warn(f"W&B is off for this run: {reason[:200]} (tracker=none leaves it out)")
    with contextlib.suppress(Exception, SystemExit):
        sys.modules["wandb"].teardown()

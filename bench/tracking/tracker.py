"""Show a run in W&B (offline unless asked otherwise), TensorBoard or a CSV file: `tracker=`.

The record is authoritative and a tracker only a view of it, so trouble here causes one warning and
never an error.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bench.tracking import csv_file, figures, tensorboard, weights_and_biases
from bench.tracking.figures import Figures


class View(Protocol):
    """One run in one tracker; it may raise anything, and `Tracker` handles it."""

    where: str  # where to find it, for the line at a run's end

    def log(self, point: dict[str, Any]) -> None: ...

    def finish(self, summary: dict[str, Any], record: dict[str, Any], failed: bool) -> None: ...


class Tracker:
    """One run's view, or nothing. where: the place to look at, during and after the run."""

    def __init__(
        self,
        view: View | None = None,
        shown: Figures | None = None,
        trouble: Callable[[Exception], None] = print,
    ):
        """trouble: called with the first error, after which nothing is tracked any more."""
        self._view, self._shown, self._trouble = view, shown, trouble
        self.where = view.where if view else None

    def log(self, line: dict) -> None:
        """Send one line of metrics.jsonl. A resumed run first sends its earlier lines."""
        if self._shown is not None:
            shown = self._shown
            self._attempt(lambda view: view.log(shown.of(line)))

    def finish(self, record: dict, failed: bool = False) -> None:
        """Send the record, or {} if the run was stopped without one, and close."""
        self._attempt(lambda view: view.finish(figures.summary(record), record, failed))
        self._view = None

    def _attempt(self, action: Callable[[View], None]) -> None:
        """Do the action; after an error, warn once and track nothing any more."""
        if self._view is None:
            return
        try:
            action(self._view)
        except Exception as error:
            self._view = self.where = None
            self._trouble(error)


def start(
    block: dict, record: dict, folder: Path, warn: Callable[[str], None], goes_on: bool = False
) -> Tracker:
    """A tracker for one cell, as the `tracker` settings say; its files are in `folder`.

    block: name and, for W&B, project, mode and an entity other than the account's own. record: what
    is known before the run. goes_on: the run resumes from a checkpoint. The kept lines of its
    metrics.jsonl must then be logged first, so that every view is complete by itself. Never raises:
    trouble is one line to `warn`.
    """
    name = block["name"]
    if name == "none":
        return Tracker()

    def trouble(error: Exception) -> None:
        warn(f"{LABELS[name]} is off for this run: {_reason(name, error)}")
        if name == "wandb":
            weights_and_biases.end()

    try:
        return Tracker(_view(block, record, folder, goes_on), Figures(record), trouble)
    except Exception as error:
        trouble(error)
        return Tracker()


LABELS = {"wandb": "W&B", "tensorboard": "TensorBoard", "csv": "CSV"}


def _view(block: dict, record: dict, folder: Path, goes_on: bool) -> View:
    if block["name"] == "wandb":
        return weights_and_biases.Run(block, record, folder, goes_on)
    files: dict[str, Callable[[dict, Path], View]]
    files = {"tensorboard": tensorboard.Events, "csv": csv_file.Table}
    return files[block["name"]](record, folder)


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        extra = ": pip install -e '.[tensorboard]'" if name == "tensorboard" else ""
        return f"the package {name} is not installed{extra}"
    return (" ".join(str(error).split()) or type(error).__name__)[:200]

"""A run in TensorBoard: FOLDER/tensorboard/<cell>/, written by torch.utils.tensorboard."""

import json
import shutil
from pathlib import Path
from typing import Any

from bench.tracking import figures


class Events:
    """Scalars over steps, and the settings as text."""

    def __init__(self, record: dict[str, Any], folder: Path) -> None:
        """Starts the run's folder anew. Raises OSError, and ImportError without the package."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second: import only on use

        every = folder / "tensorboard"
        self.where = f"TensorBoard: tensorboard --logdir {every}"
        shutil.rmtree(every / record["cell"], ignore_errors=True)
        self.writer = SummaryWriter(log_dir=str(every / record["cell"]))
        config = json.dumps(record["config"], indent=1)
        self.writer.add_text("run/name", figures.title(record))
        self.writer.add_text("run/config", "\n".join(f"    {s}" for s in config.splitlines()))
        self.shown: set[str] = set()

    def log(self, point: dict[str, Any]) -> None:
        for name, value in point.items():
            if name != "step":
                self.shown.add(name)
                self.writer.add_scalar(name, value, point["step"])

    def finish(self, summary: dict[str, Any], record: dict[str, Any], failed: bool) -> None:
        """Skip figures that have a curve: a median of all steps is no point of it."""
        for name, value in summary.items():
            if isinstance(value, str):
                self.writer.add_text(name, value, record["steps"])
            elif name not in self.shown:
                self.writer.add_scalar(name, value, record["steps"])
        self.writer.close()

"""A run as a table: FOLDER/csv/<cell>.csv, one row per step, one column per figure."""

import csv
import io
from pathlib import Path
from typing import Any

from bench.records import files


class Table:
    """A step's row includes its evaluation; the last row also has the final values."""

    def __init__(self, record: dict[str, Any], folder: Path) -> None:
        """Starts a new file. Raises OSError."""
        self.path = folder / "csv" / f"{record['cell']}.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.where = f"CSV: {self.path}"
        self.columns: list[str] = []
        self.row: dict[str, Any] = {}  # of the last step, since its evaluation may follow
        files.write_text(self.path, "")

    def log(self, point: dict[str, Any]) -> None:
        if self.row and point["step"] != self.row["step"]:
            self._write()
        self.row |= point

    def finish(self, summary: dict[str, Any], record: dict[str, Any], failed: bool) -> None:
        if self.row:
            self.row = summary | self.row
            self._write()

    def _write(self) -> None:
        """Append the row; a new column, which is rare, rewrites the file."""
        new = [name for name in self.row if name not in self.columns]
        if new:
            self.columns += new
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*rows, self.row])
            files.write_text(self.path, text.getvalue())
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns, lineterminator="\n").writerow(self.row)
        self.row = {}

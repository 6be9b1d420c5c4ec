"""records.csv: one line per run."""

import csv
import io

from bench.records import archive
from bench.records.archive import Run

COLUMNS = (
    *("experiment", "stage", "condition", "arm", "cell", "status", "model", "optimizer", "qkv"),
    *("data", "seed", "lr_scale", "steps", "precision", "parameters", "tokens_per_step"),
    *("images_per_step", "val_loss", "best_val_loss", "test_loss", "val_accuracy"),
    *("test_accuracy", "train_seconds", "optimizer_share", "peak_memory_bytes"),
)


def table(runs: list[Run]) -> str:
    """One line per run, as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *COLUMNS,
            "overhead",
            "optimizer_state_bytes",
            "device",
            "gpu",
            "commit",
            "dirty",
            "file",
            "command",
        ]
    )
    for run in sorted(runs, key=lambda r: (str(r.file), r.experiment or "", r.arm or "")):
        one = run.record | run._asdict()
        writer.writerow(
            [
                *(one.get(column) for column in COLUMNS),
                (one.get("overhead") or {}).get("value"),
                (one.get("optimizer_state_bytes") or {}).get("total"),
                archive.setup(one).device,
                one["environment"].get("gpu"),
                one["environment"].get("commit"),
                one["environment"].get("dirty"),
                run.file.name,
                one["command"],
            ]
        )
    return out.getvalue()

"""A run in Weights & Biases: one W&B run per cell, its files in FOLDER/wandb.

`wandb/logged.jsonl` has one line for each record that W&B has completely, for
scripts/wandb_upload.py. `wandb/live.jsonl` has one for each run that was started online, so that it
can be resumed.
"""

import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from bench.records.record import as_json
from bench.tracking import figures

INIT_SECONDS = 15.0  # how long an online run may take to start
FINISH_SECONDS = 60.0  # how long an online run's end may wait for uploads
LOGGED, LIVE = "logged.jsonl", "live.jsonl"


class Run:
    """One run. Offline each attempt is a separate run; online a resumed cell continues its run."""

    def __init__(self, block: dict, record: dict, folder: Path, goes_on: bool) -> None:
        self.online = block["mode"] == "online"
        self.folder = folder / "wandb"
        self.folder.mkdir(parents=True, exist_ok=True)  # otherwise W&B silently uses /tmp
        known = self._begun(block, record["cell"]) if self.online and goes_on else None
        self.run = _init(block, record, folder, known)
        # The lines come again in the same order; W&B already has this many.
        self.known = self.run.step if known else 0
        if self.online and not known:
            where = {"project": self.run.project, "entity": self.run.entity}
            _append(self.folder / LIVE, {"cell": record["cell"], "run": self.run.id, **where})
        place = self.run.url if self.online else self.folder / Path(self.run.settings.sync_dir).name
        self.where = f"W&B: {place}"

    def log(self, point: dict[str, Any]) -> None:
        if self.known:
            self.known -= 1
        else:
            self.run.log(point)

    def finish(self, summary: dict[str, Any], record: dict[str, Any], failed: bool) -> None:
        self.run.summary.update(summary)
        whole = bool(record) and not failed
        if whole:
            self._keep(record)
        if self.online and record.get("status") == "diverged":
            self.run.alert(f"{self.run.name} diverged"[:60], record.get("error") or "", "ERROR")
        self.run.finish(exit_code=int(failed))
        if whole:
            where = {"project": self.run.project, "entity": self.run.entity}
            cell, seconds = identity(record)
            note = {"cell": cell, "train_seconds": seconds, "run": self.run.id, **where}
            _append(self.folder / LOGGED, note | {"mode": self.run.settings.mode})

    def _keep(self, record: dict[str, Any]) -> None:
        """Save the record and the routing table, from copies among the run's own files."""
        import wandb

        name = re.sub(r"[^\w.-]", "_", record["cell"])
        artifact = wandb.Artifact(name, type="record", description=figures.title(record))
        for file, content in (("record", record), ("routing", record.get("routing"))):
            path = Path(self.run.dir) / f"{file}.json"
            path.write_text(as_json(content), encoding="utf-8")
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact)

    def _begun(self, block: dict, cell: str) -> str | None:
        """The W&B run that a cell was started in."""
        same = {"cell": cell, "project": block["project"]}
        same |= {"entity": block["entity"]} if block.get("entity") else {}
        notes = [n for n in _read(self.folder / LIVE) if same.items() <= n.items()]
        return notes[-1]["run"] if notes else None


def identity(record: dict) -> tuple:
    """What distinguishes a record from another of the same cell that rerun=true trained again."""
    return record["cell"], record["train_seconds"]


def logged(folder: Path, project: str, entity: str | None) -> dict[tuple, dict]:
    """The records that `folder/wandb` lists as logged to this project, by the record's identity.

    entity: a user or team; None matches any.
    """
    notes = _read(folder / "wandb" / LOGGED)
    same = [n for n in notes if n["project"] == project and entity in (None, n["entity"])]
    return {identity(note): note for note in same}


def end() -> None:
    """End W&B's own process; a broken one would make the next cells fail."""
    with contextlib.suppress(Exception, SystemExit):
        sys.modules["wandb"].teardown()


def _init(block: dict, record: dict, folder: Path, known: str | None) -> Any:
    offline = block["mode"] == "offline"
    if offline:  # otherwise W&B's process still sends measurements of itself
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb  # takes a second: import only on use

    settings = wandb.Settings(
        silent=True,  # no output, and no question for a key
        console="off",
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,  # otherwise an incomplete run would count as logged
        # The record has the machine, the commit and the versions.
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=offline,  # processor, memory and GPU over time, for live viewers
        x_save_requirements=False,
    )
    wandb.setup(settings=settings)  # silences the search for a key, too
    run = wandb.init(
        project=block["project"],
        entity=block.get("entity"),
        mode=block["mode"],
        group=figures.group(record),
        job_type=record.get("stage") or "train",
        name=figures.title(record),
        tags=figures.tags(record),
        config=_config(record),
        dir=str(folder),
        settings=settings,
        id=known,
        resume="allow" if known else None,
        reinit="create_new",  # a sweep trains many cells in one process
    )
    for axis in figures.AXES:
        run.define_metric(axis, hidden=True)  # an axis to choose, without its own chart
    run.define_metric("*", step_metric="step")
    return run


def _config(record: dict) -> dict:
    """The settings, further facts from the record, and the `qkv` that the optimizer used, because
    not every optimizer uses it."""
    unit, per_step = figures.unit_of(record)
    facts = {"cell": record["cell"], "parameters": record.get("parameters")}
    facts |= {f"{unit}_per_step": per_step} if unit else {}
    beside = {"environment": record["environment"], "qkv_used": record["qkv"] or "none"}
    return record["config"] | beside | facts


def _append(file: Path, note: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(note) + "\n")


def _read(file: Path) -> list[dict[str, Any]]:
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):  # cut off by a kill
            found.append(json.loads(line))
    return found

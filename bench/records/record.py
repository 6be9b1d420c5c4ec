"""The files of a run: metrics line by line, and one record at the end."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bench.records import files, ledger, origin
from bench.records.cell import qkv_name
from bench.records.mathematics import MATHEMATICS
from bench.settings.schema import Settings

SCHEMA = 1
CURVE_POINTS = 200  # training points kept in a record
DONE = ("finished", "diverged")
NOT_YET = (
    *("target_step", "target_seconds", "train_seconds", "throughput", "model_flops"),
    *("forward_backward_ms", "optimizer_ms", "optimizer_share", "overhead"),
    *("optimizer_state_bytes", "peak_memory_bytes"),
)
PART = ("experiment", "stage", "condition", "arm")


def plain(value: Any) -> Any:
    """The value with null for numbers that JSON does not have (NaN, infinity)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def as_json(value: Any, indent: int | None = 1) -> str:
    return json.dumps(plain(value), indent=indent) + "\n"


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write the whole file or nothing. Raises OSError with the path."""
    files.write_text(path, as_json(value, indent))


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a run folder; None if there is no readable one."""
    try:
        found = files.read_json(folder / "record.json")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def join(folder: Path, settings: Settings, begins: bool = False) -> None:
    """Note which part of an experiment a cell is, even if it was trained for another experiment.

    begins: the run starts now, so the experiment's declaration is older than it. The declaration's
    hash is noted, and stays when the run is interrupted and resumes.
    """
    if not settings.experiment:
        return
    known = parts(folder)
    place = _place(known, settings)
    if place < len(known) and not begins:
        return
    part = {key: getattr(settings, key) for key in PART}
    part["study"] = ledger.of_experiment(settings.experiment) if begins else None
    write_json(folder / "part_of.json", [*known[:place], part, *known[place + 1 :]])


def study(folder: Path, settings: Settings) -> str | None:
    """The hash of the declaration that existed when a run began as this part of an experiment."""
    known = parts(folder)
    return next((part.get("study") for part in known[_place(known, settings) :]), None)


def _place(known: list[dict[str, Any]], settings: Settings) -> int:
    """The index of the cell's current part in its list of known parts; the list's length if new."""
    same = ([getattr(settings, key) for key in PART] == [one[key] for key in PART] for one in known)
    return next((at for at, found in enumerate(same) if found), len(known))


def parts(folder: Path) -> list[dict[str, Any]]:
    """The experiment parts that a cell belongs to: experiment, stage, condition and arm of each.

    Also `study`, the hash of its declaration (ledger.py); null if the run began earlier.
    """
    try:
        found = files.read_json(folder / "part_of.json")
    except (OSError, ValueError):
        return []
    found = found if isinstance(found, list) else []
    return [one for one in found if isinstance(one, dict) and one.keys() >= set(PART)]


def write_config(folder: Path, settings: Settings) -> None:
    files.write_text(folder / "config.yaml", OmegaConf.to_yaml(asdict(settings)))


def write_hydra(folder: Path) -> None:
    """Hydra's configuration and the overrides, as in its .hydra/; without Hydra nothing.

    They say how this run was started, and are therefore no part of the cell.
    """
    if not HydraConfig.initialized():
        return
    config = cast(DictConfig, HydraConfig.instance().cfg)
    files.write_text(
        folder / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.masked_copy(config, "hydra"))
    )
    files.write_text(folder / "overrides.yaml", OmegaConf.to_yaml(config.hydra.overrides.task))


def sweep() -> str | None:
    """The name of the folder of the Hydra sweep that this run belongs to; None without a sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


class Metrics:
    """metrics.jsonl: one object per line, flushed after every write.

    before: the file's content when the run resumes, `text` at that time; the file on disk may have
    grown since, or be damaged. writes: whether this process writes; of a run's processes only one
    does. Raises OSError with the path.
    """

    def __init__(self, folder: Path, before: str = "", writes: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        self.texts = before.splitlines(keepends=True) if writes else []
        self.lines: list[dict[str, Any]] = [json.loads(text) for text in self.texts]
        self.file = None
        if writes:
            files.write_text(self.path, before)
            self.file = self.path.open("a")

    def write(self, line: dict[str, Any]) -> None:
        if self.file is None:
            return
        self.lines.append(plain(line))
        self.texts.append(json.dumps(self.lines[-1]) + "\n")
        with files.naming(self.path):
            self.file.write(self.texts[-1])
            self.file.flush()

    @property
    def text(self) -> str:
        """Everything written so far."""
        return "".join(self.texts)

    def close(self) -> None:
        if self.file is not None:
            with files.naming(self.path):
                self.file.close()

    def training(self, key: str) -> list[Any]:
        """The values of one key in all training lines."""
        return [line[key] for line in self.lines if "train_loss" in line]


def has_metrics(folder: Path, text: str) -> bool:
    """Whether a run's metrics.jsonl begins with these lines."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            return file.read(len(text)) == text.encode()  # ASCII, as json.dumps writes it
    except OSError:
        return False


def lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines up to the first damaged one; a kill may have cut the last line."""
    found: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        found.append(line)
    return found


def curve(lines: list[dict[str, Any]], points: int = CURVE_POINTS) -> list[dict[str, Any]]:
    """All evaluation lines and at most `points` training lines, evenly spread."""
    training = [i for i, line in enumerate(lines) if "train_loss" in line]
    stride = max(1, math.ceil(len(training) / points))
    kept = set(training[::-1][::stride])
    return [line for i, line in enumerate(lines) if i in kept or "val_loss" in line]


def about(settings: Settings, cell: str, study: str | None = None) -> dict[str, Any]:
    """The part of a record that is known before the run: its settings and its origin.

    study: the hash of the experiment's declaration at the start of the run (ledger.py).
    """
    return {
        "schema": SCHEMA,
        "mathematics": MATHEMATICS,
        "cell": cell,
        "status": None,
        "diverged_step": None,
        "error": None,
        "val_loss": None,
        "best_val_loss": None,
        "test_loss": None,
        **dict.fromkeys(NOT_YET),
        "steps": 0,
        "curve": [],
        "command": origin.command(),
        **{key: getattr(settings, key) for key in PART},
        "study": study,
        "sweep": sweep(),
        "model": settings.model["name"],
        "optimizer": settings.optimizer["name"],
        "qkv": qkv_name(settings),
        "data": settings.data["name"],
        "seed": settings.seed,
        "lr_scale": settings.optimizer["lr_scale"],
        "precision": settings.train.precision,
        "environment": origin.environment(settings.train.device),
        "config": asdict(settings),
    }

"""Where the weights are that a run starts from: a file, a run's folder, or an experiment's run."""

import dataclasses
import hashlib
from pathlib import Path

from bench.records import files
from bench.settings.errors import UserError
from bench.settings.schema import CONF, Settings

WEIGHTS = "weights.safetensors"  # what train.save_weights=true leaves in a run's folder
IN_FOLDER = (WEIGHTS, "model.safetensors")  # the latter: transformers' save_pretrained
ACCEPTED = "a run's folder, a .safetensors file, or EXPERIMENT/CONDITION/ARM"


def settled(settings: Settings) -> Settings:
    """The settings with init_from as the file that it names. Raises UserError without one."""
    if settings.init_from is None:
        return settings
    return dataclasses.replace(settings, init_from=str(file(settings, settings.init_from)))


def file(settings: Settings, asked: str) -> Path:
    """The file that init_from names. Raises UserError naming what would make it, or is accepted."""
    path = Path(asked).expanduser()
    if path.is_file():
        return path
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    parts = asked.split("/")
    if len(parts) == 3 and (CONF / "experiment" / f"{parts[0]}.yaml").is_file():
        return _of_arm(settings, asked, *parts)
    raise UserError(f"init_from={asked}: has no weights; it takes {ACCEPTED}")


def _of_arm(settings: Settings, asked: str, experiment: str, condition: str, arm: str) -> Path:
    """The weights of an arm's final run with this run's seed."""
    wanted = {"experiment": experiment, "stage": "final", "condition": condition, "arm": arm}
    runs = Path(settings.results_dir) / "runs"
    found = [
        one.with_name(WEIGHTS)
        for one in sorted(runs.glob(f"*-s{settings.seed}-*/part_of.json"))
        if one.with_name(WEIGHTS).is_file() and _is_part(one, wanted)
    ]
    if not found:
        raise UserError(
            f"init_from={asked}: needs bench/train.py experiment={experiment} first: no run of it "
            f"with seed {settings.seed} has left weights in {runs}"
        )
    if len(found) > 1:
        names = ", ".join(one.parent.name for one in found)
        raise UserError(f"init_from={asked}: several runs are that ({names}); name a folder")
    return found[0]


def _is_part(path: Path, wanted: dict[str, str]) -> bool:
    try:
        parts = files.read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(parts, list) and any(
        isinstance(part, dict) and wanted.items() <= part.items() for part in parts
    )


def identity(settings: Settings) -> dict[str, str] | None:
    """What a cell's hash has of the weights that the run starts from: their content."""
    if settings.init_from is None:
        return None
    path = file(settings, settings.init_from)
    try:
        with path.open("rb") as content:
            return {"sha256": hashlib.file_digest(content, "sha256").hexdigest()}
    except OSError as error:
        raise UserError(f"init_from={settings.init_from}: {error.strerror}: {path}") from error

"""A run's identity: a readable name, and a hash of every setting that can change its result."""

import hashlib
import json
import re
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bench.data import batches
from bench.records import initial
from bench.records.mathematics import MATHEMATICS
from bench.settings import targets
from bench.settings.errors import UserError
from bench.settings.schema import Settings

# These settings decide what a run stores or how it fails, not what it computes.
NOT_IN_CELL = (
    *("train.checkpoint_every", "train.keep_checkpoint", "train.save_weights"),
    *("train.reference_steps", "train.save_momentum_every"),
    *("optimizer.strict", "parallel.timeout"),
)
# Settings that are newer than the first records, each with the value that means the old behaviour.
# That value is left out of the hash, so that the cells of old records keep their names. Each new
# setting gets a line here.
LATER = {
    "mathematics": 1,
    "structure": [],
    "perturb": 0,
    "init_from": None,
    "lora_rank": None,
    "other_data": {},
    "data.column": None,
    "data.years": None,
    "data.final_eval_sequences": None,
    "data.augment": "none",
    "train.average_last": None,
    "train.clip_part": None,
    "optimizer.overlap": "none",
    "optimizer.embedding_lr_scale": 1.0,
    "parallel": {"name": "none"},
    "optimizer.roles.*.orthogonalizer.norm": "frobenius",
    "optimizer.roles.*.qkv.gate_up": "whole",
}


def name(settings: Settings) -> str:
    """The cell of a run: model, optimizer, qkv, seed and hash; its folder has this name.

    Raises UserError if that cannot name a folder.
    """
    for group in ("model", "data", "optimizer"):  # qkv has only a few fixed names
        refuse_odd_name(f"{group}.name", getattr(settings, group)["name"])
    content = {
        "mathematics": MATHEMATICS,
        "seed": settings.seed,
        "model": _model_identity(settings.model),
        "data": batches.identity(settings.data),
        "schedule": settings.schedule,
        "train": asdict(settings.train),
        "optimizer": settings.optimizer,
        "structure": [list(item) for item in settings.structure.items()],  # the last match wins
        "parallel": settings.parallel,
        "perturb": settings.perturb,
        "init_from": initial.identity(settings),
        "lora_rank": settings.lora_rank,
        "other_data": settings.other_data and batches.identity(settings.other_data),
    }
    text = json.dumps(_meaning(computing(content)), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    parts = [model_name(settings), settings.optimizer["name"], qkv_name(settings)]
    return "-".join([*filter(None, parts), f"s{settings.seed}", digest[:10]])


def computing(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The settings that say what is computed, in a form that the configs of older code have too:
    without those outside the cell, and without later ones at the value that means what was done
    before."""
    inside = {f"{path}.{key}".lstrip("."): (key, value) for key, value in tree.items()}
    return {
        key: computing(value, where) if isinstance(value, dict) else value
        for where, (key, value) in inside.items()
        if not _left_out(where, value)
    }


def refuse_odd_name(setting: str, value: Any) -> None:
    """Raise UserError for a value that cannot be part of a file name or changes the folder."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w+-][\w.+-]{0,99}", value):
        shown = "null" if value is None else value
        raise UserError(
            f"{setting}={shown}: must be letters, digits and _ . + - alone, at most 100"
        )


def model_name(settings: Settings) -> str:
    """The model's name, with its source if it has one."""
    name, source = settings.model["name"], settings.model.get("source")
    return name + "_" + re.sub(r"\W+", "_", Path(source).stem) if source else name


def qkv_name(settings: Settings) -> str | None:
    """How this run treats Q, K and V; None if its optimizer does not use that."""
    rules = settings.optimizer["roles"].values()
    return next((rule["qkv"]["name"] for rule in rules if "qkv" in rule), None)


def _model_identity(block: dict[str, Any]) -> dict[str, Any]:
    """The model block; a local configuration in it counts by its content."""
    path = Path(block.get("source") or "").expanduser()
    file = path / "config.json" if path.is_dir() else path
    if not block.get("source") or not file.is_file():
        return block
    return block | {"source": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}


def _meaning(value: Any) -> Any:
    """Settings in the form that is hashed: equal meanings have equal forms.

    1 and 1.0 are one number, and a target counts by its name.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, list):
        return [_meaning(item) for item in value]
    if isinstance(value, dict):
        return {
            key: targets.name(item) if key == "_target_" else _meaning(item)
            for key, item in value.items()
        }
    return value


def _left_out(path: str, value: Any) -> bool:
    if path in NOT_IN_CELL:
        return True
    value = [] if path == "structure" and not value else value  # a mapping in a config
    return any(value == before and fnmatch(path, pattern) for pattern, before in LATER.items())

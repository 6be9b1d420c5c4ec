"""The identity of a run: a readable name and a hash of every setting that can change its result."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import data
from bench.config import Settings

# What a run leaves behind, not what it computes.
NOT_IN_CELL = ("checkpoint_every", "keep_checkpoint", "reference_steps", "save_momentum_every")


def name(settings: Settings) -> str:
    """The cell of a run: model, optimizer, qkv, seed, and the hash."""
    train = {k: v for k, v in asdict(settings.train).items() if k not in NOT_IN_CELL}
    optimizer = {k: v for k, v in settings.optimizer.items() if k != "strict"}
    optimizer["roles"] = {role: _as_before(rule) for role, rule in optimizer["roles"].items()}
    content = {
        "seed": settings.seed,
        "model": _model_identity(settings.model),
        "data": data.identity(settings.data),
        "schedule": settings.schedule,
        "train": train,
        "optimizer": optimizer,
    }
    if settings.structure:  # a list, for of two patterns the last one wins
        content["structure"] = [list(item) for item in settings.structure.items()]
    if settings.parallel["name"] != "none":
        content["parallel"] = {k: v for k, v in settings.parallel.items() if k != "timeout"}
    if settings.perturb:
        content["perturb"] = settings.perturb
    text = json.dumps(_canonical(content), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    parts = [model_name(settings), settings.optimizer["name"], qkv_name(settings)]
    return "-".join([*filter(None, parts), f"s{settings.seed}", digest[:10]])


def model_name(settings: Settings) -> str:
    """The model's name, with its source where it has one."""
    name, source = settings.model["name"], settings.model.get("source")
    return name + "_" + re.sub(r"\W+", "_", Path(source).stem) if source else name


def _as_before(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule without settings that came later and say what was done before there was a choice."""
    method = rule.get("orthogonalizer")
    if not method or method.get("norm") != "frobenius":
        return rule
    return rule | {"orthogonalizer": {k: v for k, v in method.items() if k != "norm"}}


def qkv_name(settings: Settings) -> str | None:
    """How this run treats Q, K and V; None where its optimizer has no use for that."""
    rules = settings.optimizer["roles"].values()
    return next((rule["qkv"]["name"] for rule in rules if "qkv" in rule), None)


def _model_identity(block: dict[str, Any]) -> dict[str, Any]:
    """The model block; a local configuration that it names counts by its content."""
    path = Path(block.get("source") or "").expanduser()
    file = path / "config.json" if path.is_dir() else path
    if not block.get("source") or not file.is_file():
        return block
    return block | {"source": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}


def _canonical(value: Any) -> Any:
    """Equal numbers written alike: 1 and 1.0 are one setting."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    return [_canonical(item) for item in value] if isinstance(value, list) else value

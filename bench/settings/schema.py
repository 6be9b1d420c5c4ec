"""The types of all settings, and the files of conf/ that can be chosen.

Nothing here imports torch, so that a misspelt option gets its answer at once.
"""

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf"
NEEDED = {  # what every file of a group must have, including a user's own
    "data": ("name", "task", "source"),
    "model": ("name", "task", "tokenizer", "_target_"),
    "optimizer": ("name", "lr_scale", "aux_lr_scale", "roles"),
    "qkv": ("name",),
    "orthogonalizer": ("name",),
    "schedule": ("name", "warmup_steps", "_target_"),
    "parallel": ("name",),
    "tracker": ("name",),
}
GROUPS = tuple(NEEDED)


def choices(*groups: str) -> str:
    """The files in each of these folders of conf/, one paragraph per folder: for --help."""
    lines = (f"{group}: " + ", ".join(choices_of(group)) for group in groups)
    return "\n".join(
        textwrap.fill(line, 80, initial_indent="  ", subsequent_indent="    ") for line in lines
    )


def choices_of(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


OmegaConf.register_new_resolver("choices", choices)


@dataclass
class Train:
    """conf/train.yaml explains each one."""

    steps: int | None = MISSING
    time_limit: float | None = MISSING
    batch_size: int = MISSING
    sequence_length: int = MISSING
    accumulate: int = MISSING
    precision: str = MISSING
    device: str = MISSING
    compile: bool = MISSING
    clip_norm: float | None = MISSING
    clip_part: str | None = MISSING
    eval_every: int = MISSING
    checkpoint_every: int | None = MISSING
    keep_checkpoint: bool = MISSING
    save_weights: bool = MISSING
    target_loss: float | None = MISSING
    reference_steps: int = MISSING
    save_momentum_every: int | None = MISSING
    average_last: float | None = MISSING


@dataclass
class Settings:
    """One run's settings. Groups stay plain mappings: their files and targets define them."""

    seed: int = MISSING
    rerun: bool = MISSING
    inspect: Any = MISSING  # a switch, or full
    experiment: str | None = MISSING
    stage: str | None = MISSING
    condition: str | None = MISSING
    arm: str | None = MISSING
    results_dir: str = MISSING
    init_from: str | None = MISSING
    lora_rank: int | None = MISSING
    perturb: float = MISSING
    structure: dict[str, Any] = field(default_factory=dict)
    train: Train = field(default_factory=Train)
    data: dict[str, Any] = MISSING
    model: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    qkv: dict[str, Any] = MISSING
    orthogonalizer: dict[str, Any] = MISSING
    schedule: dict[str, Any] = MISSING
    parallel: dict[str, Any] = MISSING
    tracker: dict[str, Any] = MISSING
    other_data: dict[str, Any] = field(default_factory=dict)  # empty: none


@dataclass
class Declared(Settings):
    """What the files may declare: a run's settings, and an experiment's study."""

    study: dict[str, Any] | None = None  # see bench/studies/study.py


def schema() -> DictConfig:
    node = OmegaConf.structured(Declared)
    OmegaConf.set_struct(node.structure, False)  # its keys are the user's and need no leading +
    return node


ConfigStore.instance().store(name="train_schema", node=schema())

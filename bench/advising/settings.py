"""The request to `bench/advise.py`: the settings of every optimizer, and of the case.

Nothing here imports torch at module level, so that a misspelt option gets its answer at once.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from bench.processes import world
from bench.records import cell
from bench.settings import checks, config
from bench.settings.errors import UserError
from bench.settings.schema import Settings
from bench.stepping.settings import REFERENCE, arm, key_of

SHARED = ("model", "data", "orthogonalizer")
TRAIN = ("steps", "batch_size", "sequence_length", "precision", "device", "compile")
# The arms, reference first: hybrid and muon with both treatments of Q, K, V, and torch's own Muon.
ARMS = (REFERENCE, "hybrid", "hybrid qkv=per_head", "muon", "muon qkv=per_head", "torch_muon")


@dataclass
class Schema:
    """conf/advise.yaml explains each one."""

    name: str | None = MISSING
    seed: int = MISSING
    results_dir: str = MISSING
    structure: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)  # some models' files set it
    data: dict[str, Any] = MISSING
    model: dict[str, Any] = MISSING
    orthogonalizer: dict[str, Any] = MISSING


def schema() -> DictConfig:
    node = OmegaConf.structured(Schema)
    OmegaConf.set_struct(node.structure, False)  # its keys are the user's and need no leading +
    return node


ConfigStore.instance().store(name="advise_schema", node=schema())


@dataclass
class Case:
    """arms: the settings of every optimizer by label, the reference first; steps: the planned
    length of training, None if not given; words: the typed overrides, for the commands at the end
    of the advice; choices: the chosen files of groups."""

    name: str
    results_dir: str
    steps: int | None
    arms: dict[str, Settings]
    words: list[str]
    choices: dict[str, str]

    @property
    def settings(self) -> Settings:
        return self.arms[REFERENCE]

    @property
    def unit(self) -> str:
        return "tokens" if self.settings.model["task"] == "text" else "images"

    @property
    def each(self) -> int:
        """Units per example."""
        return self.settings.train.sequence_length if self.unit == "tokens" else 1

    @property
    def units(self) -> int:
        """Units per step."""
        return self.settings.train.batch_size * self.each


def settle(cfg: DictConfig, hydra: HydraConf) -> Case:
    """Check everything that needs no work; `hydra` is Hydra's own block.

    Call it while Hydra is active, because it composes more. Raises UserError naming the setting,
    its value and what is accepted.
    """
    config.resolved(cfg)
    checks.refuse_blank_folder(cfg.results_dir)
    if world.size() > 1:
        raise UserError(f"torchrun: advice is for one process, here are {world.size()}")
    words = list(hydra.overrides.task)
    refuse_unused(cfg, words)
    steps = cfg.train.steps if any(key_of(word) == "train.steps" for word in words) else None
    shared = shared_overrides(cfg, hydra, words)
    arms = {label: config.settle(arm(label, label.split(), shared)) for label in ARMS}
    first = arms[REFERENCE]
    name = default_name(first) if cfg.name is None else cfg.name
    cell.refuse_odd_name("model.name" if cfg.name is None else "name", name)
    choices = {group: hydra.runtime.choices[group] for group in SHARED}
    return Case(name, cfg.results_dir, steps, arms, words, choices)


def refuse_choices(words: list[str]) -> None:
    """Raise UserError for an optimizer or qkv override: Hydra's own message would not help."""
    for word in words:
        if key_of(word).split(".")[0] in ("optimizer", "optimizers", "qkv"):
            raise UserError(f"{word}: advice is on all of {', '.join(ARMS)}; leave it out")


def default_name(settings: Settings) -> str:
    train, size = settings.train, str(settings.train.batch_size)
    if settings.model["task"] == "text":
        size += f"x{train.sequence_length}"
    return "-".join([cell.model_name(settings), train.device, size])


def refuse_unused(cfg: DictConfig, words: list[str]) -> None:
    """Refuse keys that a leading + got past Hydra, and settings that only training uses."""
    config.compare_keys("", cfg, [f.name for f in fields(Schema)])
    for key in map(key_of, words):
        group, _, rest = key.partition(".")
        if group == "schedule" or (group == "train" and rest not in TRAIN):
            accepted = ", ".join(f"train.{name}" for name in TRAIN)
            raise UserError(f"{key}: has no effect here, nothing is trained; accepted: {accepted}")
    for name in ("steps", "batch_size", "sequence_length"):
        value = cfg.train[name]
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if not whole and not (name == "steps" and value is None):
            raise UserError(f"train.{name}={value}: must be a whole number above 0")


def shared_overrides(cfg: DictConfig, hydra: HydraConf, words: list[str]) -> dict[str, str]:
    """By key, overrides that give conf/train.yaml the case's model, data and defaults."""
    shared = {group: f"{group}={hydra.runtime.choices[group]}" for group in SHARED}
    for word in words:
        key = key_of(word)
        if key not in SHARED and key.split(".")[0] in (*SHARED, "structure"):
            shared[key] = word
    for name in TRAIN:
        if cfg.train[name] is not None:
            shared[f"train.{name}"] = f"train.{name}={cfg.train[name]}"
    return shared | {"seed": f"seed={cfg.seed}", "results_dir": f"results_dir={cfg.results_dir}"}

"""Settings of the step benchmark: each optimizer has the settings of its own training run.

Nothing here imports torch at module level, so that a misspelt option gets its answer at once.
"""

import shlex
from dataclasses import dataclass, field, fields
from typing import Any

from hydra import compose
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from bench.processes import parallel, world
from bench.records import cell
from bench.settings import checks, command, config, mistakes
from bench.settings.errors import UserError
from bench.settings.schema import Settings

REFERENCE = "adamw"  # conf/optimizer/adamw.yaml, unchanged
# Groups that apply to all optimizers, and those that the entry of one optimizer may change.
SHARED = ("model", "data", "qkv", "orthogonalizer", "parallel")
OWN = ("optimizer", "qkv", "orthogonalizer", "parallel.muon")
USUAL = ("adamw", "torch_muon", "hybrid", "muon")  # if no optimizers are named
WHOLE_ONLY = ("torch_muon",)  # cannot step sharded weights
TRAIN = ("sequence_length", "precision", "device", "compile")
FEWEST = 3  # batches, for a line with a residual; rounds, for a spread


@dataclass
class Schema:
    """conf/step.yaml explains each one."""

    optimizers: list[str] | None = None
    batches: list[int] | None = MISSING
    rounds: int = MISSING
    timeline: bool = MISSING
    name: str | None = MISSING
    seed: int = MISSING
    results_dir: str = MISSING
    train: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)  # some models' files set it
    data: dict[str, Any] = MISSING
    model: dict[str, Any] = MISSING
    qkv: dict[str, Any] = MISSING
    orthogonalizer: dict[str, Any] = MISSING
    parallel: dict[str, Any] = MISSING


ConfigStore.instance().store(name="step_schema", node=Schema)


@dataclass
class Benchmark:
    """What to measure: the settings of every arm by label, the reference first."""

    name: str
    batches: list[int]
    rounds: int
    timeline: bool
    results_dir: str
    arms: dict[str, Settings]


def settle(cfg: DictConfig, hydra: HydraConf) -> Benchmark:
    """Check everything that needs no work; `hydra` is Hydra's own block.

    Call it while Hydra is active, because it composes more. Raises UserError naming the setting,
    its value and what is accepted.
    its value and what is accepted.
    """
    config.resolved(cfg)
    checks.refuse_blank_folder(cfg.results_dir)
    refuse_unused(cfg, hydra.overrides.task)
    refuse_few(cfg.rounds, cfg.batches)
    shared = shared_overrides(cfg, hydra)
    cut = hydra.runtime.choices["parallel"] not in ("none", "ddp")
    usual = [name for name in USUAL if not cut or name not in WHOLE_ONLY]
    entries = read_entries(usual if cfg.optimizers is None else cfg.optimizers)
    composed = {label: arm(label, entries[label], shared) for label in entries}  # without torch
    arms = {label: config.settle(one) for label, one in composed.items()}
    first = arms[REFERENCE]
    name = default_name(first) if cfg.name is None else cfg.name
    cell.refuse_odd_name("model.name" if cfg.name is None else "name", name)
    processes = world.size()  # which share a batch
    quarter = processes * max(1, first.train.batch_size // 4 // processes)
    batches = sorted(cfg.batches or [quarter, 2 * quarter, 4 * quarter])
    refuse_mesh(arms, batches, processes)
    if cfg.timeline and first.parallel["name"] != "none":
        raise UserError(f"timeline=true: needs parallel=none, not {first.parallel['name']}")
    return Benchmark(name, batches, cfg.rounds, cfg.timeline, cfg.results_dir, arms)


def default_name(settings: Settings) -> str:
    parts = [cell.model_name(settings), settings.train.device]
    if settings.parallel["name"] != "none":
        parts += [settings.parallel["name"], str(world.size())]
    return "-".join(parts)


def refuse_mesh(arms: dict[str, Settings], batches: list[int], processes: int) -> None:
    """Refuse each entry that cannot use Muon's matrices on this mesh."""
    for settings in arms.values():
        if settings.parallel["name"] == "none":
            continue
        settings.train.batch_size = processes * max(batches)  # not used otherwise
        parallel.check(settings, processes)
        data = dict(parallel.mesh_shape(settings.parallel, processes)).get("data", 1)
        if any(size % data for size in batches):
            raise UserError(f"batches={batches}: each must divide over {data} processes")


def refuse_unused(cfg: DictConfig, overrides: list[str]) -> None:
    """Refuse keys that a leading + got past Hydra, and settings that only training uses."""
    config.compare_keys("", cfg, [f.name for f in fields(Schema)])
    for key in map(key_of, overrides):
        group, _, rest = key.partition(".")
        if group == "schedule" or (group == "train" and rest not in TRAIN):
            accepted = ", ".join(f"train.{name}" for name in TRAIN)
            raise UserError(f"{key}: has no effect here, nothing is trained; accepted: {accepted}")


def refuse_few(rounds: int, batches: list[int] | None) -> None:
    if rounds < FEWEST:
        raise UserError(f"rounds={rounds}: must be at least {FEWEST}")
    if batches is not None and (len(batches) < FEWEST or min(batches) < 1):
        raise UserError(
            f"batches={list(batches)}: needs {FEWEST} sizes or more, each at least 1, for the line "
            "through their times"
        )
    if batches is not None and len(set(batches)) < len(batches):
        raise UserError(f"batches={list(batches)}: the sizes must be different")


def key_of(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0].split("@")[0]


def shared_overrides(cfg: DictConfig, hydra: HydraConf) -> dict[str, str]:
    """By key, overrides that give conf/train.yaml this benchmark's model, data and defaults."""
    choices = hydra.runtime.choices
    shared = {group: f"{group}={choices[group]}" for group in SHARED}
    for override in hydra.overrides.task:
        key = key_of(override)
        if key not in SHARED and key.split(".")[0] in SHARED:
            shared[key] = override
    for name in TRAIN:
        shared[f"train.{name}"] = f"train.{name}={cfg.train[name]}"
    shared["train.clip_norm"] = "train.clip_norm=null"  # no step is clipped here
    return shared | {"seed": f"seed={cfg.seed}"}


def read_entries(optimizers: list[str]) -> dict[str, list[str]]:
    """The words of each entry by label, the reference first."""
    entries: dict[str, list[str]] = {}
    for entry in optimizers:
        try:
            words = shlex.split(entry)
        except ValueError as error:
            raise UserError(f"optimizers: {entry}: {error}") from None
        label = " ".join(words)
        if not words or label in entries:
            problem = f"{label} is listed twice" if words else "an entry is empty"
            raise UserError(f"optimizers={list(optimizers)}: {problem}")
        entries[label] = words
    if not entries:
        raise UserError("optimizers=[]: needs at least one, e.g. [adamw,hybrid]")
    return {REFERENCE: [REFERENCE]} | entries


def arm(label: str, words: list[str], shared: dict[str, str]) -> DictConfig:
    """The settings of a training run with one optimizer: its name, then its own overrides."""
    name, *changes = words
    own = {key_of(change): change for change in changes}
    for key in own:
        if (key not in OWN and key.split(".")[0] not in OWN) or key == "optimizer":
            raise UserError(
                f'optimizers: "{label}": {key}: an entry is the name of an optimizer, then '
                f"overrides of {', '.join(OWN)}"
            )
    kept = {k: v for k, v in shared.items() if k.split(".")[0] not in own}
    overrides = kept | {"optimizer": f"optimizer={name}"} | own
    try:
        command.check_overrides([overrides["optimizer"], *own.values()])
        with mistakes.in_words():
            return compose("train", overrides=list(overrides.values()))
    except UserError as error:
        raise UserError(f'optimizers: "{label}": {error}') from None

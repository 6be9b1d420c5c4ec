"""Settings: their types and their checks.

Nothing here imports torch at module level, so that a misspelt option is answered at once.
"""

import math
import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from bench.settings import mistakes, rules, targets
from bench.settings.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
NEEDED = {  # what every file of a group says, also a user's own
    "data": ("name", "task"),
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
    """The files of each of these folders of conf/, a paragraph a folder: for --help."""
    lines = (f"{group}: " + ", ".join(choices_of(group)) for group in groups)
    return "\n".join(
        textwrap.fill(line, 100, initial_indent="  ", subsequent_indent="    ") for line in lines
    )


def choices_of(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


OmegaConf.register_new_resolver("choices", choices)


@dataclass
class Train:
    """conf/train.yaml says what each is."""

    steps: int | None = MISSING
    time_limit: float | None = MISSING
    batch_size: int = MISSING
    sequence_length: int = MISSING
    accumulate: int = MISSING
    precision: str = MISSING
    device: str = MISSING
    compile: bool = MISSING
    clip_norm: float | None = MISSING
    eval_every: int = MISSING
    checkpoint_every: int | None = MISSING
    keep_checkpoint: bool = MISSING
    target_loss: float | None = MISSING
    reference_steps: int = MISSING
    save_momentum_every: int | None = MISSING


@dataclass
class Settings:
    """One run's settings. The groups stay plain mappings: their files and targets define them."""

    seed: int = MISSING
    rerun: bool = MISSING
    inspect: bool = MISSING
    experiment: str | None = MISSING
    stage: str | None = MISSING
    condition: str | None = MISSING
    arm: str | None = MISSING
    results_dir: str = MISSING
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


@dataclass
class Declared(Settings):
    """What the files may declare: a run's settings, and the study that an experiment is."""

    study: dict[str, Any] | None = None  # bench/studies/study.py


def schema() -> DictConfig:
    node = OmegaConf.structured(Declared)
    OmegaConf.set_struct(node.structure, False)  # its keys are the user's: they need no leading +
    return node


ConfigStore.instance().store(name="train_schema", node=schema())


def settle(config: DictConfig) -> Settings:
    """Check everything that can be checked without work, and fix what depends on the machine.

    Raises UserError naming the setting, its value and what is accepted.
    """
    refuse_unknown_keys(config)
    plain = resolved(config)
    del plain["study"]  # says which runs there are, not what one of them is
    settings = Settings(**{**plain, "train": Train(**plain["train"])})
    refuse_blank_folder(settings.results_dir)
    refuse_loose_part(settings)
    check_targets(settings)
    check_numbers(settings)
    check_tasks(settings)
    if settings.tracker.get("mode", "offline") not in ("offline", "online"):
        raise UserError(f"tracker.mode={settings.tracker['mode']}: must be offline or online")
    check_schedule(settings)
    resolve_machine(settings)
    for role, rule in settings.optimizer["roles"].items():
        rules.check(f"optimizer.roles.{role}", rule)
    return settings


def refuse_lists(overrides: Sequence[str]) -> None:
    """Raise UserError where one run is given several files of a group: it would take the last."""
    for override in overrides:
        group, _, value = override.partition("=")
        if group in GROUPS and value.startswith("["):
            several = value.strip("[]").replace(" ", "")
            raise UserError(f"{override}: takes one; -m {group}={several} trains each of them")


def resolved(config: DictConfig) -> dict[str, Any]:
    """All settings as plain values. Raises UserError where one is missing or cannot be resolved."""
    with mistakes.in_words():
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return cast(dict[str, Any], plain)


def refuse_unknown_keys(config: DictConfig) -> None:
    """A leading + gets a key past Hydra, so every key is compared with the schema or its file."""
    compare_keys("", config, [f.name for f in fields(Declared)])
    compare_keys("train.", config["train"], [f.name for f in fields(Train)])
    for group in GROUPS:
        if OmegaConf.is_missing(config, group):
            raise UserError(f"{group}: was removed but is needed")
        block = config[group]
        lacking = [key for key in NEEDED[group] if key not in (block or {})]
        if not block:
            raise UserError(f"{group}: needs one of {', '.join(choices_of(group))}")
        if lacking:
            raise UserError(
                f"{group}={block.get('name')}: its file is without {', '.join(lacking)}"
            )
        file = CONF / group / f"{block.get('name')}.yaml"
        if file.exists():
            known = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))
            known = known.get(group, known)
            compare_keys(f"{group}.", block, [k for k in known if k != "defaults"])
            rules.compare_kinds(group, OmegaConf.to_container(block), known)
            for key, inner in known.items():
                if key != "roles" and isinstance(inner, dict):  # roles: checked by routing
                    for name in inner:
                        compare_keys(f"{group}.{key}.{name}.", block[key][name], list(inner[name]))


def compare_keys(prefix: str, node: DictConfig, known: list[str]) -> None:
    """Raise UserError for a key that is not known, and for a known one that was removed."""
    keys = cast(list[str], list(node.keys()))  # `in` would not see those that need a value
    for key in keys:
        if key not in known:
            accepted = ", ".join(sorted(known))
            raise UserError(f"{prefix}{key}: no such setting; accepted here: {accepted}")
    for key in known:
        if key not in keys:
            raise UserError(f"{prefix}{key}: was removed but is needed")


def refuse_blank_folder(results_dir: str) -> None:
    if not results_dir.strip():
        raise UserError("results_dir=: needs the name of a folder, e.g. results_dir=results")


def refuse_loose_part(settings: Settings) -> None:
    """stage, condition and arm say which part of an experiment a run is."""
    for key in ("stage", "condition", "arm"):
        value = getattr(settings, key)
        if value is not None and settings.experiment is None:
            raise UserError(f"{key}={value}: is a part of an experiment, needs experiment=…")


def check_targets(settings: Settings) -> None:
    """Targets have to be text before a cell gets its name from them."""
    for group in ("model", "schedule"):
        target = getattr(settings, group)["_target_"]
        if not isinstance(target, str) or not target:
            raise UserError(f"{group}._target_={target}: must be text")


def check_numbers(settings: Settings) -> None:
    train = settings.train
    whole = ("batch_size", "sequence_length", "accumulate", "eval_every")
    for name in whole:
        _at_least(f"train.{name}", getattr(train, name), 1)
    for name in ("steps", "checkpoint_every", "save_momentum_every"):
        if getattr(train, name) is not None:
            _at_least(f"train.{name}", getattr(train, name), 1)
    _at_least("train.reference_steps", train.reference_steps, 0)
    _at_least("seed", settings.seed, 0)
    if settings.seed >= 2**63:
        raise UserError(f"seed={settings.seed}: must be below 2^63")
    for name in ("time_limit", "clip_norm", "target_loss"):
        value = getattr(train, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"train.{name}={value}: must be null or a number above 0")
    if train.steps is None and train.time_limit is None:
        raise UserError("train.steps=null: set train.steps or train.time_limit (seconds)")
    if train.sequence_length < 2 and settings.data["task"] == "text":
        raise UserError(f"train.sequence_length={train.sequence_length}: must be at least 2")
    if not 0 <= settings.perturb < 1:
        raise UserError(f"perturb={settings.perturb}: must be a number from 0 to below 1")
    optimizer = settings.optimizer
    _rate("optimizer.lr_scale", optimizer["lr_scale"])
    _rate("optimizer.aux_lr_scale", optimizer["aux_lr_scale"])
    if not isinstance(optimizer["roles"], dict):
        raise UserError(f"optimizer.roles={optimizer['roles']}: needs a rule for each role")
    for role, rule in optimizer["roles"].items():
        if not isinstance(rule, dict) or "_target_" not in rule or "lr" not in rule:
            raise UserError(f"optimizer.roles.{role}: needs _target_ and lr")
        target = rule["_target_"]
        if not isinstance(target, str) or not target:
            raise UserError(f"optimizer.roles.{role}._target_={target}: must be a class's name")
        _rate(f"optimizer.roles.{role}.lr", rule["lr"])
        for key in ("qkv", "orthogonalizer"):
            if key in rule and not isinstance(rule[key], dict):
                raise UserError(f"optimizer.roles.{role}.{key}={rule[key]}: must be ${{{key}}}")
        if "weight_decay" in rule:
            _rate(f"optimizer.roles.{role}.weight_decay", rule["weight_decay"])


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name}={value}: must be at least {least}")


def _rate(name: str, value: Any) -> None:
    if not rules.is_number(value) or not 0 <= value < math.inf:
        raise UserError(f"{name}={value}: must be a number, 0 or above")


def check_tasks(settings: Settings) -> None:
    model, dataset = settings.model, settings.data
    for group, block in (("model", model), ("data", dataset)):
        if block.get("task") not in ("text", "images"):
            raise UserError(f"{group}.task={block.get('task')}: must be text or images")
    if model["task"] != dataset["task"]:
        shipped = {"text": "sotu", "images": "fashion_mnist"}[model["task"]]
        raise UserError(
            f"data={dataset['name']}: is {dataset['task']}, but model={model['name']} takes "
            f"{model['task']}; leave data out, or choose e.g. data={shipped}"
        )


def check_schedule(settings: Settings) -> None:
    warmup = settings.schedule["warmup_steps"]
    if not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 0:
        raise UserError(f"schedule.warmup_steps={warmup}: must be a whole number, 0 or above")
    for key in ("decay_fraction", "final_fraction"):
        value = settings.schedule.get(key, 0.0)
        if not rules.is_number(value) or not 0 <= value <= 1:
            raise UserError(f"schedule.{key}={value}: must be a number between 0 and 1")
    try:
        schedule_factor(settings)(0, 0.0)
    except Exception as error:
        raise UserError(f"schedule={settings.schedule['name']}: {error}") from None


def schedule_factor(settings: Settings):
    """(step, progress) -> the factor on every rate."""
    block = {k: v for k, v in settings.schedule.items() if k not in ("name", "_target_")}
    function = targets.find(settings.schedule["_target_"])
    return lambda step, progress: function(step, progress, **block)


def model_builder(settings: Settings):
    """facts of the data -> the model, as `model._target_` builds it."""
    block = settings.model
    arguments = {k: v for k, v in block.items() if k not in ("name", "task", "tokenizer")}
    build = targets.find(arguments.pop("_target_"))
    return lambda facts: build(**arguments, **facts)


def resolve_machine(settings: Settings) -> None:
    """Replace every `auto` by what this machine makes of it, before the cell gets its hash."""
    train = settings.train
    for name, accepted in (("device", DEVICES), ("precision", PRECISIONS)):
        if getattr(train, name) not in accepted:
            raise UserError(
                f"train.{name}={getattr(train, name)}: must be one of {', '.join(accepted)}"
            )
    import torch

    from optimizers.precision import bf16_pays

    if train.device == "auto":
        train.device = "cuda" if torch.cuda.is_available() else "cpu"
    if train.device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device=cuda: torch sees no CUDA device here; use train.device=cpu")
    if train.precision == "auto":
        train.precision = "bf16" if bf16_pays(train.device) else "fp32"
    if train.compile and not has_compiler():
        raise UserError("train.compile=true: needs a C++ compiler (g++ or clang++), none is found")
    for rule in settings.optimizer["roles"].values():
        if rule.get("orthogonalizer", {}).get("dtype") == "auto":
            rule["orthogonalizer"]["dtype"] = "bf16" if bf16_pays(train.device) else "fp32"


def has_compiler() -> bool:
    candidates = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return any(shutil.which(name) for name in candidates if name)

"""Turns a composed configuration into the settings of one run, checked and fixed for this machine.

Nothing here imports torch at module level, so that a misspelt option gets its answer at once.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from bench.settings import checks, loading, mistakes, rules
from bench.settings.errors import UserError
from bench.settings.schema import CONF, GROUPS, NEEDED, Declared, Settings, Train, choices_of

PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")


def settle(config: DictConfig) -> Settings:
    """Check everything that needs no work, and fix what depends on the machine.

    Raises UserError naming the setting, its value and what is accepted.
    """
    refuse_unknown_keys(config)
    plain = resolved(config)
    del plain["study"]  # says which runs there are, not what a run is
    settings = Settings(**{**plain, "train": Train(**plain["train"])})
    checks.refuse_blank_folder(settings.results_dir)
    checks.refuse_loose_part(settings)
    checks.check_targets(settings)
    checks.check_inspect(settings)
    checks.check_numbers(settings)
    checks.check_names(settings)
    checks.check_tasks(settings)
    checks.check_adapters(settings)
    if settings.tracker.get("mode", "offline") not in ("offline", "online"):
        raise UserError(f"tracker.mode={settings.tracker['mode']}: must be offline or online")
    checks.check_schedule(settings)
    resolve_machine(settings)
    for role, rule in settings.optimizer["roles"].items():
        rules.check(f"optimizer.roles.{role}", rule)
    return settings


def refuse_lists(overrides: Sequence[str]) -> None:
    """Raise UserError if one run gets several files of a group: Hydra would use the last."""
    for override in overrides:
        group, _, value = override.partition("=")
        if group in GROUPS and value.startswith("["):
            several = value.strip("[]").replace(" ", "")
            raise UserError(f"{override}: takes one; -m {group}={several} trains each of them")


def resolved(config: DictConfig) -> dict[str, Any]:
    """All settings as plain values. Raises UserError if one is missing or cannot be resolved."""
    with mistakes.in_words():
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return cast(dict[str, Any], plain)


def refuse_unknown_keys(config: DictConfig) -> None:
    """Compare every key with the schema or its file, because a leading + gets a key past Hydra."""
    compare_keys("", config, [f.name for f in fields(Declared)])
    compare_keys("train.", config["train"], [f.name for f in fields(Train)])
    for group in GROUPS:
        if OmegaConf.is_missing(config, group):
            raise UserError(f"{group}: was removed but is needed")
        refuse_unknown_in(config[group], group, group)
    if config.get("other_data"):
        refuse_unknown_in(config["other_data"], "other_data", "data")


def refuse_unknown_in(block: DictConfig, place: str, group: str) -> None:
    """Compare a block of settings with its file in conf/GROUP/. place: where the block stands."""
    lacking = [key for key in NEEDED[group] if key not in (block or {})]
    if not block:
        raise UserError(f"{place}: needs one of {', '.join(choices_of(group))}")
    if lacking:
        raise UserError(f"{place}={block.get('name')}: its file is without {', '.join(lacking)}")
    file = CONF / group / f"{block.get('name')}.yaml"
    if not file.exists():
        return
    known = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))
    known = known.get(group, known)
    compare_keys(f"{place}.", block, [k for k in known if k != "defaults"])
    rules.compare_kinds(place, OmegaConf.to_container(block), known)
    for key, inner in known.items():
        if key != "roles" and isinstance(inner, dict):  # routing checks roles
            for name in inner:
                compare_keys(f"{place}.{key}.{name}.", block[key][name], list(inner[name]))


def compare_keys(prefix: str, node: DictConfig, known: list[str]) -> None:
    """Raise UserError for an unknown key, and for a known one that was removed."""
    keys = cast(list[str], list(node.keys()))  # `in` would miss keys that still need a value
    for key in keys:
        if key not in known:
            raise UserError(mistakes.unknown(f"{prefix}{key}", known))
    for key in known:
        if key not in keys:
            raise UserError(f"{prefix}{key}: was removed but is needed")


def device(setting: str, asked: str) -> str:
    """cpu or cuda. Raises UserError for a device that torch does not see here or know."""
    if asked not in DEVICES:
        raise UserError(f"{setting}={asked}: must be one of {', '.join(DEVICES)}")
    loading.torch()
    import torch

    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise UserError(f"{setting}=cuda: torch sees no CUDA device here; use {setting}=cpu")
    return ("cuda" if there else "cpu") if asked == "auto" else asked


def resolve_machine(settings: Settings) -> None:
    """Replace every `auto` by its value for this machine, before the cell gets its hash."""
    train = settings.train
    if train.precision not in PRECISIONS:
        raise UserError(
            f"train.precision={train.precision}: must be one of {', '.join(PRECISIONS)}"
        )
    train.device = device("train.device", train.device)
    from optimizers.precision import bf16_pays

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

"""Checks of one run's settings before any work; each check raises UserError.

Nothing here imports torch at module level, so that a misspelt option gets its answer at once.
"""

import math
from typing import Any

from bench.settings import rules, targets
from bench.settings.errors import UserError
from bench.settings.schema import Settings, Train, choices_of


def refuse_blank_folder(results_dir: str) -> None:
    if not results_dir.strip():
        raise UserError("results_dir=: needs the name of a folder, e.g. results_dir=results")


def refuse_loose_part(settings: Settings) -> None:
    """Refuse a stage, condition or arm alone: they say which part of an experiment a run is."""
    for key in ("stage", "condition", "arm"):
        value = getattr(settings, key)
        if value is not None and settings.experiment is None:
            raise UserError(f"{key}={value}: is a part of an experiment, needs experiment=…")


def check_inspect(settings: Settings) -> None:
    if settings.inspect not in (True, False, "full"):
        raise UserError(f"inspect={settings.inspect}: must be true, false or full")


def check_targets(settings: Settings) -> None:
    """Check that targets are text, before a cell gets its name from them."""
    for group in ("model", "schedule"):
        target = getattr(settings, group)["_target_"]
        if not isinstance(target, str) or not target:
            raise UserError(f"{group}._target_={target}: must be text")


def check_names(settings: Settings) -> None:
    """Check names in groups where the name alone decides; in other groups it is a label."""
    named = {group: getattr(settings, group) for group in ("qkv", "parallel", "tracker")}
    for role, rule in settings.optimizer["roles"].items():
        if "qkv" in rule:
            named[f"optimizer.roles.{role}.qkv"] = rule["qkv"]
    for setting, block in named.items():
        accepted = choices_of(setting.rpartition(".")[2])
        if block.get("name") not in accepted:
            raise UserError(
                f"{setting}.name={block.get('name')}: must be one of {', '.join(accepted)}"
            )


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
    _clipping(train)
    if train.average_last is not None and not 0 < train.average_last <= 1:
        raise UserError(
            f"train.average_last={train.average_last}: must be null or a share above 0, at most 1"
        )
    if train.steps is None and train.time_limit is None:
        raise UserError("train.steps=null: set train.steps or train.time_limit (seconds)")
    if train.sequence_length < 2 and settings.data["task"] == "text":
        raise UserError(f"train.sequence_length={train.sequence_length}: must be at least 2")
    if not 0 <= settings.perturb < 1:
        raise UserError(f"perturb={settings.perturb}: must be a number from 0 to below 1")
    optimizer = settings.optimizer
    _rate("optimizer.lr_scale", optimizer["lr_scale"])
    _rate("optimizer.aux_lr_scale", optimizer["aux_lr_scale"])
    _rate("optimizer.embedding_lr_scale", optimizer.get("embedding_lr_scale", 1.0))
    _overlap(settings)
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


def _clipping(train: Train) -> None:
    if train.clip_part not in (None, "auxiliary"):
        raise UserError(f"train.clip_part={train.clip_part}: must be null or auxiliary")
    if train.clip_part is not None and train.clip_norm is None:
        raise UserError(f"train.clip_part={train.clip_part}: needs train.clip_norm, which is null")


def _overlap(settings: Settings) -> None:
    """Check Muon's step in the backward pass, at which the norm of all gradients is unknown."""
    chosen = settings.optimizer.get("overlap", "none")
    if chosen not in ("none", "backward"):
        raise UserError(f"optimizer.overlap={chosen}: must be none or backward")
    if chosen == "none":
        return
    for name, value, needed in (
        ("train.clip_norm", settings.train.clip_norm, None),
        ("parallel", settings.parallel["name"], "none"),
    ):
        if value != needed:
            wanted = "null" if needed is None else needed
            raise UserError(f"optimizer.overlap=backward: needs {name}={wanted}, not {value}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name}={value}: must be at least {least}")


def _rate(name: str, value: Any) -> None:
    if not rules.is_number(value) or not 0 <= value < math.inf:
        raise UserError(f"{name}={value}: must be a number, 0 or above")


def check_tasks(settings: Settings) -> None:
    model, dataset, other = settings.model, settings.data, settings.other_data
    for group, block in (("model", model), ("data", dataset)):
        if block.get("task") not in ("text", "images"):
            raise UserError(f"{group}.task={block.get('task')}: must be text or images")
    if model["task"] != dataset["task"]:
        shipped = {"text": "sotu", "images": "fashion_mnist"}[model["task"]]
        raise UserError(
            f"data={dataset['name']}: is {dataset['task']}, but model={model['name']} takes "
            f"{model['task']}; leave data out, or choose e.g. data={shipped}"
        )

    if other and other.get("task") != model["task"]:
        raise UserError(
            f"data@other_data={other['name']}: is {other.get('task')}, but model={model['name']} "
            f"takes {model['task']}"
        )


def check_adapters(settings: Settings) -> None:
    rank, strategy = settings.lora_rank, settings.parallel["name"]
    if rank is None:
        return
    _at_least("lora_rank", rank, 1)
    if strategy not in ("none", "ddp"):
        raise UserError(f"lora_rank={rank}: needs parallel=none or ddp, not {strategy}")


def check_schedule(settings: Settings) -> None:
    _share_out_warmup(settings)
    warmup = settings.schedule["warmup_steps"]
    if not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 0:
        raise UserError(f"schedule.warmup_steps={warmup}: must be a whole number, 0 or above")
    for key in ("decay_fraction", "final_fraction"):
        value = settings.schedule.get(key, 0.0)
        if not rules.is_number(value) or not 0 <= value <= 1:
            raise UserError(f"schedule.{key}={value}: must be a number between 0 and 1")
    targets.check_schedule(settings)


def warmup_steps(fraction: float, steps: int) -> int:
    """The steps of a warm-up that is given as a share of the run."""
    return round(fraction * steps)


def _share_out_warmup(settings: Settings) -> None:
    """Replace schedule.warmup_fraction by the number of steps that it means."""
    fraction = settings.schedule.pop("warmup_fraction", None)
    if fraction is None:
        return
    if not rules.is_number(fraction) or not 0 <= fraction <= 1:
        raise UserError(
            f"schedule.warmup_fraction={fraction}: must be null or a number between 0 and 1"
        )
    if settings.train.steps is None:
        raise UserError(f"schedule.warmup_fraction={fraction}: needs train.steps")
    settings.schedule["warmup_steps"] = warmup_steps(fraction, settings.train.steps)

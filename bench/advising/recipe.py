"""The advice in runnable form: a YAML, lines of plain PyTorch, a command with its forecast."""

import shlex
from dataclasses import replace
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bench.advising.settings import Case
from bench.advising.start import KELLER, SPLIT, Start, grid
from bench.settings.schema import CONF
from bench.studies import forecast
from bench.training.schedule import wsd

SEEDS = (0, 1, 2)  # of the test, the fewest that can be judged
STEPS = 1000  # of the test, if train.steps was not given
EVALUATIONS = 20  # per run: a share of steps is accurate to a twentieth
LINE = 76  # characters per line of a script
KEPT = ("name", "seed", "results_dir")  # typed for the advice, not used in training
DAY = 24 * 3600.0  # a longer test counts as long
CHECK = ("adamw", "hybrid")


def typed(case: Case) -> list[str]:
    """The overrides that select the model, the data and the batches."""
    skipped = (*KEPT, "train.steps")
    return [word for word in case.words if word.lstrip("+~").split("=")[0] not in skipped]


def settings_file(case: Case, start: Start) -> str:
    """The text of experiment/NAME.yaml, for `bench/train.py --config-dir … experiment=NAME`."""
    chosen = {
        "model": case.choices["model"],
        "data": case.choices["data"],
        "optimizer": "hybrid",
        "qkv": start.qkv,
        "orthogonalizer": start.orthogonalizer,
    }
    train = case.settings.train
    own: dict[str, Any] = {"train": {"batch_size": train.batch_size}}
    if case.unit == "tokens":
        own["train"]["sequence_length"] = train.sequence_length
    if case.steps:
        own["train"]["steps"] = case.steps
    node = OmegaConf.create(own)
    for override in OverridesParser.create().parse_overrides(typed(case)):
        key = override.key_or_group
        if "." in key or key == "structure":
            OmegaConf.update(node, key, override.value(), force_add=True)
    content = OmegaConf.to_container(node) | {"optimizer": start.optimizer}  # type: ignore[operator]
    if start.warmup is not None:
        content["schedule"] = {"warmup_steps": start.warmup}
    sources = [f"# {one.name}: {one.value} ({one.source})" for one in start.values]
    defaults = yaml.safe_dump({"defaults": [{f"override /{k}": v} for k, v in chosen.items()]})
    head = f"# Where to start with {case.name}, as bench/advise.py says; each value's record:"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return "\n".join(["# @package _global_", head, *sources, defaults + text])


def run_it(case: Case) -> str:
    """The command that trains with the YAML."""
    folder = shlex.quote(f"{case.results_dir}/advice")
    return f"python bench/train.py --config-dir {folder} experiment={case.name}"


def in_a_script(case: Case, start: Start) -> list[str]:
    """Three statements for the user's own script; `model` exists and `s` counts steps from 0."""
    hidden = case.arms["hybrid"].optimizer["roles"]["hidden"]
    rest = case.arms["hybrid"].optimizer["roles"]["default"]
    changes, scale = start.optimizer["roles"], start.optimizer["lr_scale"]
    rate = _short(hidden["lr"] * scale)
    decay = changes["hidden"]["weight_decay"]
    roles: dict[str, dict[str, Any]] = {}
    if changes["hidden"]["momentum"] != hidden["momentum"]:
        roles["hidden"] = {"momentum": changes["hidden"]["momentum"]}
    if start.orthogonalizer != KELLER:
        block = OmegaConf.to_container(
            OmegaConf.load(CONF / "orthogonalizer" / f"{start.orthogonalizer}.yaml")
        )
        roles.setdefault("hidden", {})["orthogonalizer"] = block
    own = {"lr": _short(rest["lr"] * scale * start.optimizer["aux_lr_scale"])}
    own["weight_decay"] = changes["default"]["weight_decay"]
    usual = {"lr": rate, "weight_decay": decay}
    if different := {key: value for key, value in own.items() if value != usual[key]}:
        roles["default"] = different
    words = ["model", f"lr={rate:g}"]
    words += [f"weight_decay={decay:g}"] if decay != 0.1 else []
    words += [f'qkv="{start.qkv}"'] if start.qkv != SPLIT else []
    words += [f"roles={roles}"] if roles else []
    return [
        "from optimizers import hybrid",
        *_call("optimizer = hybrid", words),
        *_call(
            "schedule = torch.optim.lr_scheduler.LambdaLR",
            ["optimizer", f"lambda s: {_factor(case, start)}"],
        ),
    ]


def _call(head: str, words: list[str]) -> list[str]:
    """The call on one line if it is short enough."""
    line = f"{head}({', '.join(words)})"
    return [line] if len(line) <= LINE else [f"{head}(", f"    {', '.join(words)})"]


def _factor(case: Case, start: Start) -> str:
    """The YAML's schedule as an expression of s; without an end if no steps were given."""
    schedule = case.arms["hybrid"].schedule
    warmup = schedule["warmup_steps"] if start.warmup is None else start.warmup
    rise = f"min(1, (s + 1) / {warmup + 1})"
    share = schedule.get("decay_fraction")
    if case.steps is None or schedule["_target_"].split(".")[-1] != wsd.__name__ or not share:
        return rise
    fall = f"min(1, ({case.steps} - s) / {max(1, round(share * case.steps))})"
    return f"{rise} * {fall}"


def test_of(case: Case, start: Start, milliseconds: dict[str, float]) -> dict[str, Any]:
    """The command that compares AdamW and hybrid on the user's own data, its number of runs, and
    their duration: equally many rates for both around each one's start, over paired seeds.

    milliseconds: of forward and backward (`forward_backward`) and of each arm's step, as measured
    here; the forecast omits an arm without a value.
    """
    steps, rates = case.steps or STEPS, grid(start.scales)
    evaluated = max(1, steps // EVALUATIONS)
    given = typed(case)
    if not any(word.startswith("data") for word in given) and case.unit == "tokens":
        given += ["data=text_files", "data.path=YOUR_TEXT"]
    asked = [
        *("python", "bench/train.py", "-m", *given),
        *(f"train.steps={steps}", f"train.eval_every={evaluated}"),
        f"train.checkpoint_every={max(1, steps // 4)}",
        *([f"schedule.warmup_steps={start.warmup}"] if start.warmup is not None else []),
        f"optimizer={','.join(CHECK)}",
        f"optimizer.lr_scale={','.join(f'{rate:g}' for rate in rates)}",
        f"seed={','.join(map(str, SEEDS))}",
    ]
    of_each, seconds = len(rates) * len(SEEDS), 0.0
    for arm in CHECK:
        settings = case.arms[arm]
        one = replace(settings, train=replace(settings.train, steps=steps, eval_every=evaluated))
        passes = milliseconds["forward_backward"] / 1e3
        seconds += of_each * forecast.lasts(one, passes, milliseconds.get(arm, 0.0) / 1e3)
    return {
        "command": shlex.join(asked),
        "runs": of_each * len(CHECK),
        "seconds": seconds,
        "steps_in_a_day": int(steps * min(1.0, DAY / seconds)) if seconds else steps,
    }


def _short(value: float) -> float:
    return float(f"{value:.3g}")

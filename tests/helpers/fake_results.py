"""A results folder of made-up records, whole in everything that readers of records ask for."""

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.records import mathematics, record
from bench.studies import lines as reference
from bench.studies import plan, study
from bench.studies.study import FINAL, TUNE, Study

ROLES = {"hidden": [2048, 512], "embedding": [1024, 512], "vector": [512]}
ENVIRONMENT = {
    "python": "3.11.7",
    "torch": "2.13.0+cpu",
    "cpu": "Imagined Processor",
    "gpu": None,
    "threads": 2,
    "commit": "0123456789abcdef",
    "dirty": False,
}


def fill(
    folder: Path,
    experiment: str,
    conditions: list[str] | None = None,
    arms: list[str] | None = None,
    seeds: list[int] | None = None,
    **changes: Any,
) -> Study:
    """Publish the records of an experiment, or of the conditions, arms and seeds named.

    changes: of every record.
    """
    declared = study.load(experiment)
    if declared.search is not None:
        return fill_search(folder, declared, conditions, arms)
    for condition in conditions or declared.conditions:
        for arm in arms or declared.arms:
            for seed in declared.tune_seeds if arm in declared.tuned() else ():
                for rate in declared.grid:
                    write(folder, one(declared, TUNE, condition, arm, seed, rate) | changes)
            for seed in seeds or declared.final_seeds:
                rate = best(declared.rates_of.get(arm, arm))
                write(folder, one(declared, FINAL, condition, arm, seed, rate) | changes)
    return declared


def fill_search(
    folder: Path, declared: Study, conditions: list[str] | None, arms: list[str] | None
) -> Study:
    """Publish the records of a search: losses are parabolas in the logarithm of the rate."""
    for number, sweep in enumerate(plan.searching(declared, ends(declared), borrowed(declared))):
        if sweep.condition in (conditions or declared.conditions) and sweep.arm in (
            arms or declared.arms
        ):
            point = dict(sweep.point)
            fake = one(declared, *sweep.key, sweep.seeds[0], point["rate"])
            optimizer = {"lr_scale": point["rate"], "aux_lr_scale": point.get("auxiliary", 1.0)}
            optimizer["embedding_lr_scale"] = point.get("embedding", 1.0)
            config = fake["config"] | {"optimizer": optimizer}
            write(folder, fake | {"config": config, "cell": f"{fake['cell']}-{number}"})
    return declared


def ends(declared: Study) -> Callable[[plan.Sweep], float]:
    """The loss of each run of a search."""
    return lambda sweep: loss(
        declared,
        sweep.condition,
        declared.rates_of.get(sweep.arm, sweep.arm),
        sweep.seeds[0],
        dict(sweep.point)["rate"],
    )


def borrowed(declared: Study) -> plan.Rankings:
    """The trials of the experiments that a search borrows from."""
    assert declared.search is not None
    found: plan.Rankings = {}
    carry = declared.search.carry.values() if declared.search.takes else ()
    for name in {one.source.split("/")[0] for one in carry}:
        other, own = study.load(name), {}
        list(plan.searching(other, ends(other), own))
        found |= {(f"{name}/{condition}", *rest): it for (condition, *rest), it in own.items()}
    return found


def own(
    folder: Path, optimizer: str, seed: int, loss: float, rate: float = 1.0, **changes: Any
) -> dict[str, Any]:
    """Write a run of one's own, of no experiment: its folder in runs/.

    loss: on both parts; the curve gets there in a straight line. changes: of the record; those of
    `config` go into its settings.
    """
    fake = one(study.load("optimizers"), FINAL, "language", optimizer, seed, rate)
    chosen = {"optimizer": {"name": optimizer, "lr_scale": rate}}
    steps = fake["steps"]
    fake |= dict.fromkeys(record.PART) | {
        "cell": f"{fake['model']}-{optimizer}-s{seed}-{rate:g}",
        "data": "fake",
        "val_loss": loss,
        "test_loss": loss,
        "curve": [
            {"step": s, "seconds": 0.05 * s, "val_loss": loss + 3 * (1 - s / steps)}
            for s in range(steps // 12, steps + 1, steps // 12)
        ],
        "command": f"python bench/train.py optimizer={optimizer} seed={seed}",
        "config": fake["config"] | chosen | changes.pop("config", {}),
    }
    fake |= changes
    run = folder / "runs" / fake["cell"]
    run.mkdir(parents=True, exist_ok=True)
    record.write_json(run / "record.json", fake)
    return fake


def write(folder: Path, fake: dict[str, Any]) -> Path:
    file = folder / "records" / str(fake["experiment"]) / f"{fake['cell']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    record.write_json(file, fake)
    return file


def best(arm: str) -> float:
    """The rate at which an arm's loss is lowest."""
    return 2.0 ** (zlib.crc32(arm.encode()) % 3)


def noise(*words: Any) -> float:
    """A number between -1 and 1 that is the same for the same words."""
    return zlib.crc32(repr(words).encode()) / 2**31 - 1


def loss(declared: Study, condition: str, arm: str, seed: int, rate: float) -> float:
    """Lower or higher than the baseline's by the name of the arm, a parabola in log rate."""
    source = declared.rates_of.get(arm, arm)
    gain = 0 if source == declared.baseline else 0.1 * noise(condition, source)
    off = math.log2(rate / best(source))
    return 4 - gain + 0.05 * off**2 + 0.02 * noise(condition, seed) + 0.01 * noise(arm, seed)


def one(
    declared: Study, stage: str, condition: str, arm: str, seed: int, rate: float
) -> dict[str, Any]:
    given = dict(word.split("=", 1) for word in declared.conditions[condition])
    images = "vit" in given["model"]
    steps = int(given.get("train.steps", 16))
    end = loss(declared, condition, arm, seed, rate)
    adamw = arm.startswith("adam")
    own = 3.0 if adamw else 30.0
    unit = "images" if images else "tokens"
    evaluated = sorted({max(1, steps * part // 12) for part in range(1, 13)})
    curve = [
        {
            "step": s,
            "seconds": 0.05 * s,
            "val_loss": end + 3 * (1 - s / steps) ** 3 + 0.05 * (1 - s / steps) * noise(arm, seed),
        }
        for s in evaluated
    ]
    return {
        "schema": record.SCHEMA,
        "cell": f"{given['model']}-{condition}-{arm}-s{seed}-{rate:g}-{stage}",
        "status": "finished",
        "seed": seed,
        "steps": steps,
        "model": given["model"],
        "optimizer": arm,
        "lr_scale": rate,
        "precision": "fp32",
        "parameters": sum(math.prod(shape) for shape in ROLES.values()),
        f"{unit}_per_step": 32 if images else 1024,
        "val_loss": end,
        "test_loss": end + 0.01,
        "test_accuracy": 1 - end / 8 if images else None,
        "train_seconds": 0.05 * steps,
        "forward_backward_ms": {"median": 40.0, "p10": 39.0, "p90": 42.0, "n": steps},
        "optimizer_ms": {"median": own, "p10": own, "p90": own, "n": steps},
        "model_flops": {
            "per_step": 10**9,
            "per_second": 1e9 / (0.04 + own / 1e3),
            "dtype": "float32",
            "peak": {"flops_per_second": 1e11, "product": "1 of 512x512 @ 512x512"},
            "utilization": 0.01 / (0.04 + own / 1e3),
        },
        "optimizer_share": own / (40 + own),
        "overhead": {"value": (own - 3) / 43, "units_per_step": 1024, "n": 4},
        "optimizer_state_bytes": {
            "total": sum(math.prod(s) for s in ROLES.values()) * (8 if adamw else 4),
            "by_role": {r: math.prod(s) * (8 if adamw else 4) for r, s in ROLES.items()},
        },
        "peak_memory_bytes": (300 if adamw else 250) * 10**6,
        "curve": curve,
        "routing": [
            {
                "name": f"{role}.weight",
                "shape": shape,
                "role": role,
                "optimizer": "AdamW" if adamw or role != "hidden" else "Muon",
                "matrices": [[1, *shape]] if role == "hidden" and not adamw else None,
            }
            for role, shape in ROLES.items()
        ],
        "command": f"python bench/train.py -m experiment={declared.name} stage={stage} arm={arm}",
        "environment": ENVIRONMENT,
        "config": {
            "seed": seed,
            "data": {"name": "fake", "task": "images" if images else "text"},
            "model": {"tokenizer": None if images else "fake"},
            "train": {"steps": steps, "batch_size": 8, "sequence_length": 128, "accumulate": 1}
            | {"device": "cpu"},
        },
        "experiment": declared.name,
        "stage": stage,
        "condition": condition,
        "arm": arm,
    }


def lines(folder: Path, declared: Study, condition: str, **losses: float) -> Path:
    """Write the reference lines of a condition; losses: by name, on both parts."""
    baseline = one(declared, FINAL, condition, declared.baseline, declared.final_seeds[0], 1.0)
    of = reference.facts(baseline["config"], mathematics.of(baseline))
    assert of is not None
    images = of["data"]["task"] == "images"
    fake = {
        "of": of | {"content": of["data"]},
        "unit": "images" if images else "tokens",
        "lines": [
            {
                **{"name": name.replace("_", " "), "loss": loss, "validation_loss": loss},
                "bits_per_byte": None if images else loss / math.log(2) / 3,
                "accuracy": 0.8 if images else None,
            }
            for name, loss in losses.items()
        ],
        "bytes_per_token": None if images else 3.0,
        "seen": 1000,
        "there": 2000,
        "model": "a trivial model",
        "command": "none",
        "environment": ENVIRONMENT,
    }
    file = folder / "lines" / f"{reference.key(fake['of'])}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    record.write_json(file, fake)
    return file


def step(folder: Path, name: str, labels: tuple[str, ...]) -> Path:
    """Write a step benchmark of AdamW and others, measured at two batches."""
    everything = {"adamw": 0.0} | dict(zip(labels, (900.0, 400.0, 2000.0), strict=False))
    file = folder / "steps" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    fake = {
        "name": name,
        "model": "gpt2",
        "parameters": 124_000_000,
        "unit": "tokens",
        "batches": [1, 2],
        "units_per_example": 256,
        "precision": "fp32",
        "device": "cpu",
        "rounds": 5,
        "reference": "adamw",
        "rows_per_unit": 1.0,
        "noise": {"difference_ms": {"ms": 5.0}},
        "command": "python bench/step.py model=gpt2",
        "environment": ENVIRONMENT,
        "optimizers": {label: _step_of(ms) for label, ms in everything.items()},
    }
    record.write_json(file, fake)
    return file


def timed(folder: Path, name: str, **overheads: float) -> Path:
    """Write a step benchmark of gpt2_pico at 8 sequences of 128 tokens, with these overheads.

    AdamW's whole step takes 200 ms.
    """
    file = step(folder, name, tuple(overheads))
    whole = json.loads(file.read_text()) | {"batches": [8], "units_per_example": 128}
    whole["optimizers"] |= {label: _step_of(1.0) for label in overheads}  # there can be many
    for label, one in whole["optimizers"].items():
        value = overheads.get(label, 0.0)
        point = {"units": 1024, "value": value, "low": value, "high": value, "measured": True}
        one["overhead"] = [one["overhead"][0] | point]
        one["forward_backward_ms"] = [{"units": 1024, "median": 100.0}]
    record.write_json(file, whole)
    return file


def _step_of(extra: float) -> dict[str, Any]:
    """One optimizer whose step takes `extra` ms longer than AdamW's 100."""
    own = {"median": 100 + extra, "p10": 95 + extra, "p90": 105 + extra, "n": 5}
    points = [
        {
            "units": units,
            "value": extra / (100 + 4 * units),
            "low": 0.9 * extra / (100 + 4 * units),
            "high": 1.1 * extra / (100 + 4 * units),
            "measured": units <= 512,
            "theory": 3840 / units if extra else None,
        }
        for units in (256 * 2**power for power in range(10))
    ]
    at = {
        level: {"units": units, "low": 0.9 * units, "high": 1.1 * units, "measured": False}
        for level in ("0.05", "0.02", "0.01")
        for units in [extra / float(level) / 4]
    }
    return {
        "error": None,
        "step_ms": own,
        "difference_ms": {"value": extra, "low": extra, "high": extra, "within_noise": not extra},
        "overhead": points,
        "units_at": at,
        "state_bytes": {"total": 500_000_000 if extra else 1_000_000_000},
        "peak_temporary_bytes": 28_000_000,
        "temporary_grows": False,
        "gemm_share": 0.7 if extra else None,
        "theory": {"iterations": 5, "dimension": 768} if extra else None,
    }


def shared(folder: Path, name: str, labels: tuple[str, ...]) -> Path:
    """Write a step benchmark of two processes."""
    file = step(folder, name, labels)
    fake = json.loads(file.read_text()) | {"parallel": "fsdp2", "world_size": 2}
    moved = {"all_to_all": {"calls": 2, "sent_bytes": 1_000_000, "received_bytes": 1_000_000}}
    both = {"collectives_by_rank": [moved, moved], "predicted_by_rank": [moved, moved]}
    least = {"median": 3.0, "p10": 2.0, "p90": 4.0, "n": 5}
    parts = ("communication", "orthogonalization")
    for label, one in fake["optimizers"].items():
        one["communication"] = {
            "sharding": None if label == "adamw" else "distribute",
            "forward_backward": both | {"units": 512},
            "step": both
            | {"ms": {part: {"least": least} for part in parts}}
            | {"predicted_ms": dict.fromkeys(parts, 2.5)},
        }
    record.write_json(file, fake)
    return file


def checks(folder: Path, *names: str) -> Path:
    """Write the laboratory's checks, all confirmed."""
    file = folder / "ortho" / "checks.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    every = [
        {
            **dict(name=name, statement="so it is", source="nowhere", verdict="confirmed"),
            **dict(value=1.5, low=1.0, high=2.0, n=3, unit="times", condition="64 x 64"),
        }
        for name in names
    ]
    record.write_json(file, {"checks": every, "environment": ENVIRONMENT, "command": "none"})
    return file

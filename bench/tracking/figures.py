"""The figures that trackers show: their names, and the figures computed from others.

All trackers use the same names; docs/trackers.md explains each. metrics.jsonl and record.json have
keys of their own.
"""

import math
from collections.abc import Iterator
from typing import Any

UNITS = ("tokens", "images")
AXES = ("step", "seconds", *UNITS)
GIB = 2**30
# For a run's end: the path in the record, the figure's name, and a factor.
SUMMARY = (
    ("status", "run/status", None),
    ("steps", "run/steps", None),
    ("train_seconds", "run/train_seconds", None),
    ("diverged_step", "run/diverged_step", None),
    ("target_step", "run/target_step", None),
    ("target_seconds", "run/target_seconds", None),
    ("start_loss", "train/start_loss", None),
    ("val_loss", "val/loss", None),
    ("best_val_loss", "val/best_loss", None),
    ("val_accuracy", "val/accuracy", None),
    ("val_loss_averaged", "val/loss_averaged", None),
    ("test_loss", "test/loss", None),
    ("test_accuracy", "test/accuracy", None),
    ("test_loss_averaged", "test/loss_averaged", None),
    ("other_test_loss", "test/other_loss", None),
    ("forgotten", "test/forgotten", None),
    ("forward_backward_ms/median", "perf/forward_backward_ms", None),
    ("optimizer_ms/median", "perf/optimizer_ms", None),
    ("model_flops/per_second", "perf/tflops", 1e-12),
    ("model_flops/utilization", "perf/mfu", None),
    ("optimizer_share", "optim/share", None),
    ("overhead/value", "optim/overhead", None),
    ("overhead/units_per_step", "optim/overhead_batch", None),
    ("optimizer_state_bytes/total", "memory/optimizer_state_gib", 1 / GIB),
    ("peak_memory_bytes", "memory/peak_gib", 1 / GIB),
)


class Figures:
    """Turns lines of metrics.jsonl, in order, into what a tracker gets for each.

    about: what the record has before the run's first step.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self.unit, self.units_per_step = unit_of(about)
        self.clip_norm = (about["config"].get("train") or {}).get("clip_norm")
        self.flops = _at(about, "model_flops/per_step")
        self.bytes_per_token = _at(about, "bytes_per_token/validation")
        self.steps = self.clipped = 0

    def of(self, line: dict[str, Any]) -> dict[str, Any]:
        """The figures for one line, of a training step or an evaluation.

        A chart can use two values only if they are on one line, so each line has its tokens
        (images).
        """
        found = {"step": line["step"], "seconds": line.get("seconds")}
        if self.unit:
            found[self.unit] = line["step"] * self.units_per_step
        found |= self._evaluated(line) if "val_loss" in line else self._trained(line)
        return {name: value for name, value in found.items() if value is not None}

    def _trained(self, line: dict[str, Any]) -> dict[str, Any]:
        norm = line.get("grad_norm")
        clipped = line.get("clipped_norm", norm)
        self.steps += 1
        found = {
            "train/loss": line.get("train_loss"),
            **_by_role("lr", line.get("lr")),
            "grad/norm": norm,
        }
        if self.clip_norm is not None:
            self.clipped += clipped is not None and clipped > self.clip_norm
            found["grad/clipped_share"] = self.clipped / self.steps
        times = line.get("forward_backward_ms"), line.get("optimizer_ms")
        return found | self._times(*times)

    def _times(self, forward_backward: float | None, optimizer: float | None) -> dict[str, Any]:
        if forward_backward is None or optimizer is None or forward_backward + optimizer <= 0:
            return {}
        step = forward_backward + optimizer
        found = {
            "perf/forward_backward_ms": forward_backward,
            "perf/optimizer_ms": optimizer,
            "perf/step_ms": step,
            "optim/share": optimizer / step,
        }
        if self.unit:
            found[f"perf/{self.unit}_per_s"] = 1e3 * self.units_per_step / step
        if self.flops:
            found["perf/tflops"] = 1e-9 * self.flops / step
        return found

    def _evaluated(self, line: dict[str, Any]) -> dict[str, Any]:
        updates, weights = line.get("update_rms") or {}, line.get("weight_rms") or {}
        ratios = {r: u / weights[r] for r, u in updates.items() if u is not None and weights.get(r)}
        memory, logits = line.get("memory_bytes"), line.get("attention_max_logit") or []
        return {
            **of_loss("val", line["val_loss"], self.unit, self.bytes_per_token),
            "val/accuracy": line.get("val_accuracy"),
            **_by_role("update/rms", updates),
            **_by_role("weight/rms", weights),
            **_by_role("update/weight_ratio", ratios),
            **_by_role("grad/norm", line.get("grad_norms")),
            **{f"attention/max_logit/{i}": x for i, x in enumerate(logits)},
            "memory/peak_gib": None if memory is None else memory / GIB,
        }


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """The figures that a tracker shows for an ended run, from its record."""
    found = {}
    for path, name, factor in SUMMARY:
        value = _at(record, path)
        if value is not None:
            found[name] = value if factor is None else factor * value
    unit, _ = unit_of(record)
    if unit and record.get("throughput") is not None:
        found[f"perf/{unit}_per_s"] = record["throughput"]
    if {"perf/forward_backward_ms", "perf/optimizer_ms"} <= found.keys():
        found["perf/step_ms"] = found["perf/forward_backward_ms"] + found["perf/optimizer_ms"]
    for part, key in (("validation", "val"), ("test", "test")):
        lengths = _at(record, f"bytes_per_token/{part}")
        found |= of_loss(key, found.get(f"{key}/loss"), unit, lengths)
    return found


def of_loss(
    part: str, loss: float | None, unit: str | None, bytes_per_token: float | None
) -> dict[str, float]:
    """A loss in nats; for text also the perplexity, and bits per byte if known."""
    if loss is None:
        return {}
    found = {f"{part}/loss": loss}
    if unit == "tokens":
        found[f"{part}/perplexity"] = math.exp(loss) if loss < 700 else math.inf
        if bytes_per_token:
            found[f"{part}/bits_per_byte"] = loss / math.log(2) / bytes_per_token
    return found


def unit_of(record: dict[str, Any]) -> tuple[str | None, int]:
    """tokens or images, and their number per step; None if the record does not say."""
    unit = next((one for one in UNITS if record.get(f"{one}_per_step")), None)
    return unit, record[f"{unit}_per_step"] if unit else 0


def title(record: dict[str, Any]) -> str:
    """A run's short name: gpt2_nano/hybrid lr×4 s0; with Q, K and V if they are not split."""
    qkv = record.get("qkv")
    words = [f"{record['model']}/{record['optimizer']}"]
    words += [qkv] if qkv not in (None, "split") else []
    return " ".join([*words, f"lr×{record['lr_scale']:g}", f"s{record['seed']}"])


def group(record: dict[str, Any]) -> str | None:
    """The group of a run: its experiment, or else its sweep."""
    return record.get("experiment") or record.get("sweep")


def tags(record: dict[str, Any]) -> list[str]:
    """Tags for filtering runs."""
    keys = ("model", "optimizer", "qkv", "data", "condition", "arm", "precision")
    return list(dict.fromkeys(_words(record, keys)))


def _words(record: dict[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        if isinstance(record.get(key), str) and record[key]:
            yield record[key][:64]  # W&B's maximum


def _by_role(name: str, values: dict[str, Any] | None) -> dict[str, Any]:
    return {f"{name}/{role}": value for role, value in (values or {}).items()}


def _at(record: dict[str, Any], path: str) -> Any:
    """The value at a path of keys; None if one is missing."""
    found: Any = record
    for key in path.split("/"):
        found = found.get(key) if isinstance(found, dict) else None
    return found

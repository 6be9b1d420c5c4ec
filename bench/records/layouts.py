"""The keys that readers of results/ use, by kind of file; other keys are not checked."""

from typing import Any

from bench.records import shape
from bench.records.record import DONE, PART, SCHEMA
from bench.records.shape import (
    Shape,
    amount,
    both,
    count,
    each,
    flag,
    mapping,
    named,
    nullable,
    number,
    one_of,
    positive,
    rate,
    text,
)

ENVIRONMENT = mapping(
    {},
    dict.fromkeys(("cpu", "gpu", "torch", "python", "preload"), nullable(text))
    | dict.fromkeys(("commit", "commit_date"), nullable(text))
    | {"threads": nullable(count), "dirty": nullable(flag)},
)
DEVICE = one_of(("cpu", "cuda"))  # `auto` is resolved before a record is made
TIMES = mapping({"median": amount, "p10": amount, "p90": amount, "n": count})
part_of = each(mapping({}, dict.fromkeys((*PART, "study"), nullable(text))))

# a run: record.json and records/*/*.json ----------------------------------------------------------

_RULE = mapping(
    {},
    {"orthogonalizer": nullable(mapping({}, {"dtype": nullable(text)})), "_target_": text}
    | dict.fromkeys(("lr", "momentum", "weight_decay"), nullable(number))
    | {"betas": nullable(each(number, least=2))},
)
_SCALES = dict.fromkeys(("lr_scale", "aux_lr_scale", "embedding_lr_scale"), nullable(rate))
_CONFIG = mapping(
    {},
    {
        "train": nullable(mapping({}, {"device": nullable(DEVICE), "steps": nullable(count)})),
        "optimizer": nullable(mapping({}, {"roles": nullable(named(_RULE)), **_SCALES})),
        "schedule": nullable(mapping({}, {"warmup_steps": nullable(count)})),
    },
)
_POINT = mapping(
    {"step": count}, dict.fromkeys(("seconds", "val_loss", "train_loss"), nullable(number))
)
_ROUTED = mapping(
    {
        "role": text,
        "optimizer": text,
        "shape": each(count, most=8),
        "matrices": nullable(each(each(count, least=3, most=3))),
    },
)
_MODEL_FLOPS = mapping(
    {"per_step": positive, "per_second": positive, "dtype": text},
    {
        "peak": nullable(mapping({"flops_per_second": positive, "product": text})),
        "utilization": nullable(positive),
    },
)
# Every run has these, however it ended; null counts as missing.
_NEEDED = (
    *("cell", "status", "seed", "steps", "model", "optimizer", "lr_scale", "config", "curve"),
    *("environment", "command", "precision", "parameters"),
)
_NUMBERS = (
    *("val_loss", "best_val_loss", "test_loss", "val_accuracy", "test_accuracy"),
    *("val_loss_averaged", "test_loss_averaged"),
    *("test_loss_start", "other_test_loss_start", "other_test_loss", "forgotten"),
)
_RECORD = mapping(
    {
        **dict.fromkeys(("cell", "status", "model", "optimizer", "precision", "command"), text),
        **dict.fromkeys(("seed", "steps"), count),
        "lr_scale": rate,
        "parameters": positive,
        "config": _CONFIG,
        "environment": ENVIRONMENT,
        "curve": each(_POINT),
    },
    {
        "mathematics": count,
        "part_of": nullable(part_of),
        **dict.fromkeys(PART, nullable(text)),
        **dict.fromkeys(("qkv", "data", "error", "study"), nullable(text)),
        **dict.fromkeys(_NUMBERS, nullable(number)),
        **dict.fromkeys(("train_seconds", "optimizer_share"), nullable(amount)),
        **dict.fromkeys(
            ("tokens_per_step", "images_per_step", "peak_memory_bytes"), nullable(positive)
        ),
        **dict.fromkeys(("forward_backward_ms", "optimizer_ms"), nullable(TIMES)),
        "model_flops": nullable(_MODEL_FLOPS),
        "overhead": nullable(
            mapping({"value": lambda v: number(v) or positive(1 + v)}, {"units_per_step": amount})
        ),
        "optimizer_state_bytes": nullable(
            mapping({}, {"total": nullable(amount), "by_role": nullable(named(amount))})
        ),
        "routing": nullable(each(_ROUTED)),
    },
)


def record(one: Any) -> str | None:
    """A record of this suite, for a run that has ended."""
    if not isinstance(one, dict) or "schema" not in one:
        return "foreign: not a record of this suite"
    if one["schema"] != SCHEMA:
        return f"foreign: schema {shape.short(one['schema'])}, here {SCHEMA}"
    missing = [key for key in _NEEDED if one.get(key) is None]
    if missing:
        return f"partial: without {', '.join(missing)}"
    if fault := _RECORD(one):
        return fault
    if one["status"] not in DONE:
        return f"not ended: {one['status']}"
    if one["status"] == "finished" and None in (one.get("val_loss"), one.get("test_loss")):
        return "partial: finished without a loss"
    return None


# a step benchmark: steps/*.json -------------------------------------------------------------------

LEVELS = ("0.05", "0.02", "0.01")  # levels of overhead in units_at of a step benchmark
_AT = mapping(
    {**dict.fromkeys(("units", "low", "high"), nullable(amount)), "measured": flag},
)
_OVERHEAD = mapping(
    {
        "units": positive,
        **dict.fromkeys(("value", "low", "high"), nullable(number)),
        "measured": flag,
    }
)
_MOVED = mapping(
    dict.fromkeys(
        ("collectives_by_rank", "predicted_by_rank"),
        each(named(mapping({"sent_bytes": amount, "calls": count})), least=1),
    )
)


def _least(value: Any) -> str | None:
    """Times, or a null median if there were none."""
    fault = mapping({"median": nullable(amount)})(value)
    return fault or (None if value["median"] is None else TIMES(value))


_COMMUNICATION = mapping(
    {
        "sharding": nullable(text),
        "forward_backward": both(_MOVED, mapping({"units": count})),
        "step": both(
            _MOVED,
            mapping(
                {
                    "ms": named(nullable(mapping({"least": nullable(_least)}))),
                    "predicted_ms": named(nullable(amount)),
                }
            ),
        ),
    }
)
_SPREAD = mapping(dict.fromkeys(("median", "p10", "p90"), number), {"n": count})
_GAPS = mapping(
    {"span_ms": TIMES, "idle_share": _SPREAD},
    {"gaps": each(mapping({"up_to_us": nullable(amount), "ms": amount}), least=1)},
)


def _seen(value: Any) -> str | None:
    """The gaps, or the reason why there are none."""
    return None if isinstance(value, dict) and "error" in value else _GAPS(value)


_TIMELINE = mapping(
    {
        "batches": each(
            mapping(
                {
                    "units": positive,
                    "launched": _seen,
                    "graph": nullable(_seen),
                }
            )
        )
    },
)
_MEASURED = mapping(
    {
        "step_ms": TIMES,
        "difference_ms": mapping({"within_noise": flag}),
        "overhead": each(_OVERHEAD, least=1),
        "units_at": mapping(dict.fromkeys(LEVELS, _AT)),
        "state_bytes": mapping({"total": nullable(amount)}),
        **dict.fromkeys(("peak_temporary_bytes", "gemm_share"), nullable(amount)),
    },
    {
        "communication": nullable(_COMMUNICATION),
        "orthogonalization_gemm_share": nullable(amount),
        "marginal_ms": nullable(_SPREAD),
        "forward_backward_ms": nullable(each(mapping({"units": positive, "median": positive}))),
        "step_ms_rounds": nullable(each(positive)),
    },
)


def _optimizer(value: Any) -> str | None:
    """The measurements of one optimizer, or why they failed."""
    fault = mapping({"error": nullable(text)})(value)
    return fault or (None if value["error"] else _MEASURED(value))


def _hangs_together(one: dict[str, Any]) -> str | None:
    """Consistency between the parts of a step benchmark."""
    measured = {k: found for k, found in one["optimizers"].items() if not found["error"]}
    if not measured:
        return ".optimizers: none was measured"
    sizes = {size * one["units_per_example"] for size in one["batches"]}
    for label, found in measured.items():
        points = {p["units"]: p for p in found["overhead"]}
        certain = sizes | {units for units, point in points.items() if point["measured"]}
        if any(
            points.get(units, {}).get(key) is None
            for units in certain
            for key in ("value", "low", "high")
        ):
            return f".optimizers.{label}.overhead: without a batch that was measured"
        if one.get("parallel") and not found.get("communication"):
            return f".optimizers.{label}: without communication"
    return None


step: Shape = both(
    mapping(
        {
            **dict.fromkeys(("model", "unit", "precision", "reference", "command"), text),
            "parameters": positive,
            "rounds": count,
            "batches": each(both(count, positive), least=1),
            "units_per_example": both(count, positive),
            "noise": mapping({"difference_ms": mapping({"ms": amount})}),
            "environment": ENVIRONMENT,
            "optimizers": named(_optimizer, least=1),
        },
        {
            "parallel": nullable(text),
            "device": nullable(DEVICE),
            "world_size": count,
            "timeline": nullable(_TIMELINE),
        },
    ),
    _hangs_together,
)

# the laboratory's checks: ortho/checks.json -------------------------------------------------------


def _interval(check: dict[str, Any]) -> str | None:
    """Both ends of an interval or neither; none without a value."""
    ends = [check[key] is None for key in ("value", "low", "high")]
    fits = ends[1] == ends[2] and not (ends[0] and not ends[1])
    return None if fits else ": must have both low and high, or neither"


checks = mapping(
    {
        "checks": each(
            both(
                mapping(
                    {
                        **dict.fromkeys(("name", "condition", "unit"), text),
                        **dict.fromkeys(("value", "low", "high"), nullable(number)),
                        "verdict": one_of(("confirmed", "refuted", "depends", "open")),
                        "n": count,
                    }
                ),
                _interval,
            )
        )
    }
)

# reference lines: lines/*.json --------------------------------------------------------------------

LINES = ("uniform", "unigram", "bigram", "trigram", "4-gram", "softmax regression")
# The settings that determine which data a run sees.
sees = mapping(
    {
        "seed": count,
        "data": mapping({"name": text, "task": one_of(("text", "images"))}),
        "model": mapping({"tokenizer": nullable(text)}),
        "train": mapping(
            dict.fromkeys(("sequence_length", "batch_size", "accumulate", "steps"), count)
        ),
    }
)
_LINE = mapping(
    {"name": one_of(LINES), "loss": amount, "validation_loss": amount},
    dict.fromkeys(("bits_per_byte", "accuracy"), nullable(amount)),
)
lines = mapping(
    {
        "of": mapping({"mathematics": count, "data": mapping({}), "seed": count}),
        "unit": one_of(("tokens", "images")),
        "lines": each(_LINE, least=1, most=len(LINES)),
        "bytes_per_token": nullable(positive),
        **dict.fromkeys(("seen", "there"), count),
        "model": text,
        "command": text,
        "environment": ENVIRONMENT,
    }
)

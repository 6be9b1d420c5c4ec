"""Comparable runs, group by group, in words and as a table for the terminal."""

from rich.table import Table
from rich.text import Text

from bench.display.numbers import short
from bench.display.terminal import add, plain_table
from bench.studies import pairs, stats, words
from bench.studies.pairs import Bench, Group
from bench.studies.stats import Estimate


def title(bench: Bench) -> str:
    """gpt2_nano on sotu"""
    one = bench.record
    return f"{one['model']} on {one.get('data') or 'unknown data'}"


def about(bench: Bench) -> str:
    """What the runs have in common: 600 steps of 1,024 tokens, fp32 on cpu"""
    one, shared = bench.record, pairs.conditions(bench.record)
    steps, size = shared["train.steps"], shared["batch"]
    unit = "images" if one.get("images_per_step") else "tokens"
    length = "by time" if steps is None else f"{steps:,} steps"
    length += f" of {size:,.0f} {unit}" if size else ""
    size_of_model = f"{one['parameters'] / 1e6:.3g} M parameters"
    return f"{size_of_model}, {length}, {one['precision']} on {shared['device']}"


def mean(one: Group, key: str) -> Estimate:
    return stats.mean_interval(list(one.values(key).values()))


def throughput(one: Group) -> float | None:
    """Tokens or images per second of forward, backward and step, as medians."""
    times = [one.median(key, "median") for key in ("forward_backward_ms", "optimizer_ms")]
    size = pairs.batch(one.runs[0].record)
    known = [ms for ms in times if ms is not None]
    return 1e3 * size / sum(known) if size and len(known) == len(times) and sum(known) else None


# as a table ---------------------------------------------------------------------------------------


def table(bench: Bench) -> Table:
    """One row per group: its results, the difference from the baseline, and its costs."""
    unit = "images/s" if bench.record.get("images_per_step") else "tokens/s"
    shown = plain_table("", "test loss", "to AdamW", "n", unit, "share", "state", "peak")
    shown.title = Text(f"{title(bench)}: {about(bench)}")
    for one in bench.groups:
        rate, memory = throughput(one), ("optimizer_state_bytes", "total")
        add(
            shown,
            one.name,
            words.span(mean(one, "test_loss"))[0],
            against(one, bench),
            ran(one),
            "–" if rate is None else short(rate),
            words.percent(one.median("optimizer_share"), places=0),
            size(one.median(*memory)),
            size(one.median("peak_memory_bytes")),
        )
    return shown


def ran(one: Group) -> str:
    """The number of finished runs, with a mark if some diverged."""
    finished = sum(run.record["status"] == "finished" for run in one.runs)
    return f"{finished}" + f" of {len(one.runs)}" * (finished < len(one.runs))


def against(one: Group, bench: Bench) -> str:
    if one is bench.baseline:
        return "baseline"
    return "–" if one.difference is None else plus_minus(one.difference)


def plus_minus(one: Estimate) -> str:
    """The mean ± half its 95 % interval; for one seed only the mean."""
    places = words.decimals(one, 4)
    mean = words.plain(one.mean, places, "+")
    return f"{mean} ±{(one.high - one.low) / 2:.{places}f}" if one.n > 1 else f"{mean} (n=1)"


def size(value: float | None) -> str:
    return "–" if value is None else f"{short(value)}B"

"""The output at a run's end: its table, or its line in a sweep."""

import statistics
from typing import Any

from rich.table import Table

from bench.display.numbers import MB, duration, megabytes, number, short, spread
from bench.display.terminal import add, plain_table

REFERENCE = "adamw"  # conf/optimizer/adamw.yaml, the baseline of overheads
LAST = 0.95  # share of the steps after which the training loss counts as the last


def run(record: dict[str, Any]) -> Table:
    """A run's results and costs."""
    unit = "tokens" if "tokens_per_step" in record else "images"
    state = record["optimizer_state_bytes"]
    predicted = "no prediction"
    if state["predicted"] is not None:
        predicted = "as predicted" if state["predicted"] == state["total"] else "NOT as predicted"
    rows = [
        ("status", record["status"]),
        (
            "training loss",
            f"{number(last_training_loss(record))}  ({number(record['start_loss'])} at the start)",
        ),
        (
            "validation loss",
            f"{number(record['val_loss'])}  (best {number(record['best_val_loss'])})",
        ),
        ("test loss", number(record["test_loss"])),
    ]
    if record.get("forgotten") is not None:
        start, end = (number(record[f"other_test_loss{k}"]) for k in ("_start", ""))
        rows.append(("test loss, other data", f"{end}  ({start} at the start)"))
    if unit == "images":
        accuracies = [number(record[k], ".2%") for k in ("val_accuracy", "test_accuracy")]
        rows.append(("accuracy", "validation {}, test {}".format(*accuracies)))
    if record["target_step"] is not None:
        rows.append(
            ("target loss", f"step {record['target_step']}, {record['target_seconds']:.1f} s")
        )
    elif record["config"]["train"]["target_loss"] is not None:
        rows.append(("target loss", "not reached"))
    rows += [
        ("forward + backward", spread(record["forward_backward_ms"])),
        ("optimizer", spread(record["optimizer_ms"])),
        ("optimizer share", f"{number(record['optimizer_share'], '.1%')} of a step"),
        ("overhead", overhead(record, unit)),
        ("throughput", f"{number(record['throughput'], ',.0f')} {unit}/s"),
        ("model FLOPs", model_flops(record["model_flops"])),
        (
            "optimizer state",
            f"{megabytes(state['total'])}  ({state['total']:,} bytes, {predicted})",
        ),
        (
            "weights",
            f"{megabytes(4 * record['parameters'])}  ({record['parameters']:,} parameters)",
        ),
        ("peak memory", megabytes(record["peak_memory_bytes"])),
        ("training time", f"{record['train_seconds']:.1f} s, {record['steps']} steps"),
    ]
    table = plain_table("", "", words=(0, 1))
    table.show_header = False
    for row in rows:
        add(table, *row)
    return table


def last_training_loss(record: dict[str, Any]) -> float | None:
    """The mean training loss of the last recorded steps; that of one batch would be noise."""
    points = [line for line in record["curve"] if line.get("train_loss") is not None]
    end = [line["train_loss"] for line in points if line["step"] > LAST * points[-1]["step"]]
    return statistics.mean(end) if end else None


def model_flops(found: dict[str, Any] | None) -> str:
    """FLOP/s of the products in forward and backward, and their share of the peak."""
    if found is None:
        return "not counted"
    rate = f"{short(found['per_second'])} FLOP/s"
    peak = found["peak"]
    if peak is None:
        return f"{rate}  (too short a run to measure the peak)"
    most = f"{short(peak['flops_per_second'])} FLOP/s, {peak['product']} in {found['dtype']}"
    return f"{rate}, {found['utilization']:.1%} of {most}"


def overhead(record: dict[str, Any], unit: str) -> str:
    """The overhead over AdamW; AdamW's own run is the baseline."""
    value = record["overhead"]
    if record["optimizer"] == REFERENCE:
        return "none: this is AdamW, the reference"
    if value is None:
        return "not measured"
    batch = f"{value['units_per_step']:,} {unit} a step (n={value['n']})"
    return f"{value['value']:+.1%} over AdamW at {batch}"


def who_takes_what(name: str, rows: list[dict[str, Any]]) -> str:
    """One line that says how much of the model each optimizer of a run takes."""
    sizes: dict[str, list[int]] = {}
    for row in rows:
        count = 1
        for extent in row["shape"]:
            count *= extent
        entry = sizes.setdefault(row["optimizer"], [0, 0])
        entry[0] += 1
        entry[1] += count
    parts = [f"{cls} takes {n} tensors ({count / MB:.1f} M)" for cls, (n, count) in sizes.items()]
    return f"optimizer={name}: {', '.join(parts)}"


# a run of a sweep ---------------------------------------------------------------------------------


def line(place: str, name: str, outcome: dict[str, Any], left: str, width: int) -> str:
    """One run of a sweep in one line of at most `width`, with as many losses as fit.

    2/6 hybrid s0  val 4.9341  test 4.9512  train 4.8801    31 s  2 min left
    """
    head = f"{place} {name}"
    found = outcome.get("record") or {}
    if outcome["how"] not in ("finished", "skipped") or not found:
        why = (outcome.get("error") or "").strip().splitlines()
        return shortened(f"{head}  {': '.join([outcome['how'], *why[-1:]])}", width)
    took = f"{found['status']} before"
    if outcome["how"] == "finished":
        took = f"{duration(found['train_seconds']):>6}"
    words = (("val", "val_loss"), ("test", "test_loss"), ("train", "train_loss"))
    losses = [f"  {word} {number(found.get(key))}" for word, key in words]
    end = f"  {took}{left}"
    while losses[1:] and len(head) + len("".join(losses)) + len(end) > width:
        losses.pop()
    room = width - len("".join(losses)) - len(end)
    return f"{shortened(head, room)}{''.join(losses)}{end}"


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(1, width - 1)]}…"

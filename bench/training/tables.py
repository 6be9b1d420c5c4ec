"""The tables that a run and a sweep end with, and the routing table."""

from typing import Any

from rich.table import Table

from bench.display.numbers import MB, megabytes, number, short, spread


def run(record: dict[str, Any]) -> Table:
    """What one run reached and what it cost."""
    unit = "tokens" if "tokens_per_step" in record else "images"
    state = record["optimizer_state_bytes"]
    predicted = "no prediction"
    if state["predicted"] is not None:
        predicted = "as predicted" if state["predicted"] == state["total"] else "NOT as predicted"
    rows = [
        ("status", record["status"]),
        ("training loss", f"{number(record['start_loss'])} at the start"),
        (
            "validation loss",
            f"{number(record['val_loss'])}  (best {number(record['best_val_loss'])})",
        ),
        ("test loss", number(record["test_loss"])),
    ]
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
        ("overhead", overhead(record["overhead"], unit)),
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
    table = Table(title=record["cell"], show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def model_flops(found: dict[str, Any] | None) -> str:
    """The rate of the products of forward and backward, and what of the peak that is."""
    if found is None:
        return "not counted"
    rate = f"{short(found['per_second'])} FLOP/s"
    peak = found["peak"]
    if peak is None:
        return f"{rate}  (too short a run to measure the peak)"
    most = f"{short(peak['flops_per_second'])} FLOP/s, {peak['product']} in {found['dtype']}"
    return f"{rate}, {found['utilization']:.1%} of {most}"


def overhead(value: dict[str, Any] | None, unit: str) -> str:
    if value is None:
        return "not measured"
    batch = f"{value['units_per_step']:,} {unit} a step (n={value['n']})"
    return f"{value['value']:+.1%} over AdamW at {batch}"


def sweep(outcomes: list[dict[str, Any]]) -> Table:
    """One row a cell: how it ended and, where there is a record, what it reached."""
    table = Table(title=f"{len(outcomes)} runs", title_justify="left")
    table.add_column("cell", overflow="fold")
    for heading in ("how", "val loss", "test loss", "share", "overhead", "state"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        record = outcome.get("record") or {}
        cost = record.get("overhead")
        table.add_row(
            outcome["cell"],
            outcome["how"],
            number(record.get("val_loss")),
            number(record.get("test_loss")),
            number(record.get("optimizer_share"), ".1%"),
            "–" if cost is None else f"{cost['value']:+.1%}",
            megabytes((record.get("optimizer_state_bytes") or {}).get("total")),
        )
    return table


def routing(rows: list[dict[str, Any]]) -> Table:
    """Which optimizer takes which parameter, as which matrices, and why."""
    table = Table(title="routing", title_justify="left")
    for heading in ("parameter", "shape", "role", "optimizer", "rate", "decay", "matrices", "why"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        matrices = " + ".join(f"{n} of {r}×{c}" for n, r, c in row["matrices"] or [])
        if row["joined_with"]:
            matrices += f" with {len(row['joined_with'])} others"
        table.add_row(
            row["name"],
            "×".join(map(str, row["shape"])),
            row["role"],
            row["optimizer"],
            f"{row['lr']:g}",
            f"{row['weight_decay']:g}",
            matrices or "–",
            row["reason"],
        )
    return table


def who_takes_what(name: str, rows: list[dict[str, Any]]) -> str:
    """One line that says which optimizer of a run takes how much of the model."""
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

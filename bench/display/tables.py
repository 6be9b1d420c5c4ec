"""The tables a run and a sweep end with, and the routing table, all for the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from bench.processes import world
from bench.studies.study import Best

MB = 1e6


def show(table: Table) -> None:
    width = None if Console().is_terminal else 160
    Console(width=width, quiet=world.rank() > 0).print(table)


def number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else format(value, form)


def megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value / MB:,.1f} MB"


def short(value: float) -> str:
    """Three digits and k, M, G or T: 46.3k."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{float(f'{value / size:.3g}'):g}{letter}"
    return f"{float(f'{value:.3g}'):g}"


def duration(seconds: float) -> str:
    """40 s, 12 min, 3.4 h."""
    for size, word in ((3600, "h"), (60, "min")):
        if seconds >= 0.95 * size:
            value = seconds / size
            return f"{value:.1f} {word}" if word == "h" else f"{value:.0f} {word}"
    return f"{seconds:.0f} s"


def spread(times: dict[str, Any]) -> str:
    if not times["n"]:
        return "–"
    low, high = times["p10"], times["p90"]
    return f"{times['median']:,.1f} ms  (p10–p90 {low:,.1f}–{high:,.1f}, n={times['n']})"


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


def tuning(best: dict[tuple[str, str], Best]) -> Table:
    """The validation loss of each arm at each rate; the best one stands out."""
    rates = sorted({rate for one in best.values() for rate in one.losses})
    table = Table(title="validation loss by optimizer.lr_scale", title_justify="left")
    for heading in ("condition", "arm", *(f"{rate:g}" for rate in rates), ""):
        table.add_column(heading)
    for (condition, arm), one in best.items():
        shown = {rate: number(loss) for rate, loss in one.losses.items()}
        shown[one.rate] = f"[bold]{shown[one.rate]}[/bold]"
        edge = "[red]best rate at the edge of the grid[/red]" if one.at_edge else ""
        table.add_row(condition, arm, *(shown.get(rate, "–") for rate in rates), edge)
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

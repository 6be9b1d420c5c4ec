"""The tables a step benchmark ends with."""

from typing import Any

from rich.table import Table
from rich.text import Text

from bench.display import terminal
from bench.display.numbers import megabytes, number, short
from bench.stepping.timeline import EDGES

LEVELS = {"0.05": "5 %", "0.02": "2 %", "0.01": "1 %"}


def show(record: dict[str, Any]) -> None:
    for table in (times(record), levels(record), roles(record), work(record)):
        terminal.show(table)
    if any(one.get("marginal_ms") for one in measured(record).values()):
        terminal.show(in_stream(record))
    if "timeline" in record:
        terminal.show(gaps(record))


def start(title: str, headings: list[str], note: str, of: str = "optimizer") -> Table:
    """A table of optimizers, or what `of` says, with a note below it."""
    table = Table(title=title, title_justify="left", caption=Text(note), caption_justify="left")
    table.add_column(of, overflow="fold", min_width=10)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def measured(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {label: one for label, one in record["optimizers"].items() if not one["error"]}


def times(record: dict[str, Any]) -> Table:
    """A step, and the overhead at the measured batches."""
    unit, noise = record["unit"], record["noise"]["difference_ms"]["ms"]
    title = f"{record['name']}: {record['parameters'] / 1e6:,.1f} M parameters, "
    title += f"{record['precision']} on {record['device']}, n={record['rounds']}"
    if record.get("world_size", 1) > 1:
        title += f", the slowest of {record['world_size']} processes"
    sizes = [size * record["units_per_example"] for size in record["batches"]]
    headings = ["ms of a step (p10–p90)", *(f"overhead at\n{size:,} {unit}" for size in sizes)]
    note = f"none: no more than the noise, {noise:,.2f} ms (AdamW against itself)"
    for label, one in record["optimizers"].items():
        note += f"\n{label}: {one['error']}" if one["error"] else ""
    table = start(title, headings, note)
    for label, one in record["optimizers"].items():
        if one["error"]:
            table.add_row(Text(label), "failed", *["–"] * len(sizes))
            continue
        points = {point["units"]: point for point in one["overhead"]}
        cells = compared(record, label, [f"{points[size]['value']:+.1%}" for size in sizes])
        table.add_row(Text(label), milliseconds(one["step_ms"]), *cells)
    return table


def milliseconds(ms: dict[str, Any]) -> str:
    form = ",.0f" if ms["median"] >= 100 else ".1f" if ms["median"] >= 10 else ".2f"
    return f"{ms['median']:{form}} ({ms['p10']:{form}}–{ms['p90']:{form}})"


def compared(record: dict[str, Any], label: str, cells: list[str]) -> list[str]:
    """The cells of a comparison with the reference, where there is a difference."""
    if label == record["reference"]:
        return ["reference"] * len(cells)
    none = record["optimizers"][label]["difference_ms"]["within_noise"]
    return ["none"] * len(cells) if none else cells


def levels(record: dict[str, Any]) -> Table:
    """The batches from which on the overhead is small, and the line they come from."""
    line, unit = record["fit"], record["unit"]
    a, b = line["a_ms"], line["b_ms_per_unit"]
    note = (
        f"~: beyond the measured batches, where forward+backward takes {a['value']:,.1f} ms "
        f"({a['low']:,.1f} to {a['high']:,.1f}) + {b['value']:.3g} ms ({b['low']:.3g} to "
        f"{b['high']:.3g}) per {unit[:-1]}: the line through the measured medians, which are "
        f"within {line['largest_relative_residual']:.1%} of it."
    )
    headings = [f"{level} from\n{unit} (95 %)" for level in LEVELS.values()]
    table = start("from which batch on the overhead is at most", headings, note)
    least = record["batches"][0] * record["units_per_example"]
    for label, one in measured(record).items():
        cells = [reached(one["units_at"][level], least) for level in LEVELS]
        table.add_row(Text(label), *compared(record, label, cells))
    return table


def reached(at: dict[str, Any], least: int) -> str:
    """Where a level is reached; ~ and the interval where that is beyond the measured batches."""
    if at["units"] is None:
        return "never"
    if at["units"] <= least:
        return f"≤ {short(least)}"
    if at["measured"]:
        return short(at["units"])
    low, high = ("never" if at[key] is None else short(at[key]) for key in ("low", "high"))
    return f"~{short(at['units'])} ({low}–{high})"


def roles(record: dict[str, Any]) -> Table:
    """How the time of a step divides by role."""
    found = measured(record)
    names = list(dict.fromkeys(role for one in found.values() for role in one["step_ms_by_role"]))
    table = start("ms of a step by role (medians)", names, "")
    for label, one in found.items():
        ms = one["step_ms_by_role"]
        table.add_row(
            Text(label), *(number(ms[r]["median"], ",.1f") if r in ms else "–" for r in names)
        )
    return table


def in_stream(record: dict[str, Any]) -> Table:
    """A step on a device that works while the host runs ahead."""
    note = "alone: begun on a device with nothing to do; span: between two events around it;\n"
    note += "marginal: what a streak of forward + backward takes longer for it"
    table = start("ms of a step (p10–p90)", ["alone", "span", "marginal"], note)
    for label, one in measured(record).items():
        kinds = (one[key] for key in ("step_ms", "span_ms", "marginal_ms"))
        table.add_row(Text(label), *(milliseconds(ms) if ms else "–" for ms in kinds))
    return table


def gaps(record: dict[str, Any]) -> Table:
    """How much of a forward and backward the device idles, by the length of the gaps."""
    timeline = record["timeline"]
    headings = ["span, ms", "idle", *map(up_to, (*EDGES, None))]
    note = "ms of the gaps of each length; on a CPU gaps between torch's operators"
    for label, share in timeline["hidden_share"].items():
        if share["n"]:
            note += (
                f"\n{label}: {share['median']:.0%} of what begins early ends in the backward pass"
            )
    table = start("the device in forward + backward", headings, note, "batch")
    for batch in timeline["batches"]:
        for how in ("launched", "graph"):
            found = batch[how]
            name = f"{batch['units']:,} {record['unit']}, {how}"
            if found is None or "error" in found:
                if found:
                    table.add_row(Text(name), Text(found["error"]))
                continue
            cells = (f"{gap['ms']:.3g}" for gap in found["gaps"])
            idle = f"{found['idle_share']['median']:.1%}"
            table.add_row(Text(name), f"{found['span_ms']['median']:,.3g}", idle, *cells)
    return table


def up_to(edge: float | None) -> str:
    return "longer" if edge is None else f"≤ {edge:,g} µs"


def work(record: dict[str, Any]) -> Table:
    """Memory, and FLOPs beside those of the largest measured batch."""
    size = record["batches"][-1] * record["units_per_example"]
    headings = ["state", "temporary", "TFLOP", "of GEMM\npeak", "msign of\nGEMM peak"]
    headings += [f"of fw+bw\nat {size:,}", f"T·m/B\nat {size:,}"]
    table = start("memory and FLOPs of a step", headings, work_notes(record))
    for label, one in measured(record).items():
        point = next(point for point in one["overhead"] if point["units"] == size)
        table.add_row(
            Text(label),
            megabytes(one["state_bytes"]["total"]),
            megabytes(one["peak_temporary_bytes"]) + " grows" * one["temporary_grows"],
            number(None if one["flops"] is None else one["flops"] / 1e12, ".3g"),
            number(one["gemm_share"], ".0%"),
            number(one.get("orthogonalization_gemm_share"), ".0%"),
            number(point["flop_share"], ".1%"),
            number(point["theory"], ".1%"),
        )
    return table


def work_notes(record: dict[str, Any]) -> str:
    """The peaks that the GEMM share is a share of, and what could not be counted."""
    lines = [
        f"{dtype}: {rate(peak['model_shapes'])} in a step's products, "
        f"{rate(peak['large_square'])} in a large one"
        for dtype, peak in record["matmul_peak"].items()
    ]
    missed = {label: one["flops_missed"] for label, one in record["optimizers"].items()}
    missed["forward+backward"] = record["flops_missed"]
    lines += [
        f"{label}: no FLOP count, as {', '.join(names)} has none"
        for label, names in missed.items()
        if names
    ]
    return "\n".join(lines)


def rate(peak: dict[str, Any] | None) -> str:
    if peak is None:
        return "no rate"
    return f"{peak['flops_per_second'] / 1e12:.2f} TFLOP/s ({peak['product']})"

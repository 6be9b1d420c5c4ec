"""The output of a step benchmark: its findings in sentences, and the tables behind them."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from bench.display import terminal
from bench.display.numbers import megabytes, number, short
from bench.display.terminal import add, plain_table
from bench.stepping.timeline import EDGES

LEVELS = {"0.05": "5 %", "0.02": "2 %", "0.01": "1 %"}
LOWEST = "0.05"  # the level named in a finding
Shown = tuple[str, Table, list[str]]  # a title, a table, notes below it


def show(record: dict[str, Any]) -> None:
    """Print the findings, one sentence per optimizer, and then the tables."""
    terminal.show(*findings(record))
    for title, table, notes in tables(record):
        terminal.show("", title, table, *notes)


def tables(record: dict[str, Any]) -> Iterator[Shown]:
    yield times(record)
    yield levels(record)
    yield roles(record)
    yield work(record)
    if any(one.get("marginal_ms") for one in measured(record).values()):
        yield in_stream(record)
    if "timeline" in record:
        yield gaps(record)


def measured(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {label: one for label, one in record["optimizers"].items() if not one["error"]}


# in sentences -------------------------------------------------------------------------------------


def findings(record: dict[str, Any]) -> list[str]:
    """hybrid's step adds 6 % (5 to 7) at 4,096 tokens; under 5 % from 6k tokens on."""
    return [
        finding(record, label, one)
        for label, one in measured(record).items()
        if label != record["reference"]
    ] or ["No optimizer could be compared with AdamW."]


def finding(record: dict[str, Any], label: str, one: dict[str, Any]) -> str:
    """The finding at the largest measured batch."""
    unit = record["unit"]
    if one["difference_ms"]["within_noise"]:
        noise = record["noise"]["difference_ms"]["ms"]
        return f"{label}'s step costs no more than AdamW's: no more than {noise:.2g} ms apart."
    at = [point for point in one["overhead"] if point["measured"]][-1]
    value, *ends = (100 * at[key] for key in ("value", "low", "high"))
    places = 0 if abs(value) >= 2 else 1
    if value < 0:
        value, ends = -value, [-end for end in reversed(ends)]
    low, high = (f"{end:.{places}f}" for end in ends)
    verb = "adds" if at["value"] >= 0 else "saves"
    said = f"{label}'s step {verb} {value:.{places}f} % ({low} to {high}) at {at['units']:,} {unit}"
    return f"{said}{from_where_on(record, one) if at['value'] >= 0 else ''}."


def from_where_on(record: dict[str, Any], one: dict[str, Any]) -> str:
    level, name, unit = one["units_at"][LOWEST], LEVELS[LOWEST], record["unit"]
    if level["units"] is None:
        return f"; over {name} at any batch"
    if level["units"] <= record["batches"][0] * record["units_per_example"]:
        return f"; under {name} at every batch that was measured"
    about = "" if level["measured"] else "about "
    return f"; under {name} from {about}{short(level['units'])} {unit} on"


# in tables ----------------------------------------------------------------------------------------


def times(record: dict[str, Any]) -> Shown:
    """The times of a step, and the overhead at the measured batches."""
    unit, noise = record["unit"], record["noise"]["difference_ms"]["ms"]
    title = f"{record['name']}: {record['parameters'] / 1e6:,.1f} M parameters, "
    title += f"{record['precision']} on {record['device']}, n={record['rounds']}"
    if record.get("world_size", 1) > 1:
        title += f", the slowest of {record['world_size']} processes"
    sizes = [size * record["units_per_example"] for size in record["batches"]]
    headings = ["step, ms\n(p10–p90)", *(f"overhead\n{size:,} {unit}" for size in sizes)]
    notes = [f"none: no more than the noise, {noise:,.2f} ms (AdamW against itself)"]
    notes += [f"{label}: {o['error']}" for label, o in record["optimizers"].items() if o["error"]]
    table = plain_table("optimizer", *headings)
    for label, one in record["optimizers"].items():
        if one["error"]:
            add(table, label, "failed", *["–"] * len(sizes))
            continue
        points = {point["units"]: point for point in one["overhead"]}
        cells = compared(record, label, [f"{points[size]['value']:+.1%}" for size in sizes])
        add(table, label, milliseconds(one["step_ms"]), *cells)
    return title, table, notes


def milliseconds(ms: dict[str, Any]) -> str:
    form = ",.0f" if ms["median"] >= 100 else ".1f" if ms["median"] >= 10 else ".2f"
    return f"{ms['median']:{form}} ({ms['p10']:{form}}–{ms['p90']:{form}})"


def compared(record: dict[str, Any], label: str, cells: list[str]) -> list[str]:
    """The cells of a comparison with the reference, if there is a difference."""
    if label == record["reference"]:
        return ["reference"] * len(cells)
    none = record["optimizers"][label]["difference_ms"]["within_noise"]
    return ["none"] * len(cells) if none else cells


def levels(record: dict[str, Any]) -> Shown:
    """The batches from which the overhead is small, and the fitted line behind them."""
    line, unit = record["fit"], record["unit"]
    a, b = line["a_ms"], line["b_ms_per_unit"]
    note = (
        f"~: beyond the measured batches, where forward+backward takes {a['value']:,.1f} ms "
        f"({a['low']:,.1f} to {a['high']:,.1f}) + {b['value']:.3g} ms ({b['low']:.3g} to "
        f"{b['high']:.3g}) per {unit[:-1]}: the line through the measured medians, which are "
        f"within {line['largest_relative_residual']:.1%} of it."
    )
    table = plain_table("optimizer", *LEVELS.values())
    least = record["batches"][0] * record["units_per_example"]
    for label, one in measured(record).items():
        cells = [reached(one["units_at"][level], least) for level in LEVELS]
        add(table, label, *compared(record, label, cells))
    return f"from how many {unit} a step on the overhead is at most (95 %)", table, [note]


def reached(at: dict[str, Any], least: int) -> str:
    """Where a level is reached; with ~ and the interval above the measured batches."""
    if at["units"] is None:
        return "never"
    if at["units"] <= least:
        return f"≤ {short(least)}"
    if at["measured"]:
        return short(at["units"])
    low, high = ("never" if at[key] is None else short(at[key]) for key in ("low", "high"))
    return f"~{short(at['units'])} ({low}–{high})"


def roles(record: dict[str, Any]) -> Shown:
    """The time of a step divided by role."""
    found = measured(record)
    names = list(dict.fromkeys(role for one in found.values() for role in one["step_ms_by_role"]))
    table = plain_table("optimizer", *names)
    for label, one in found.items():
        ms = one["step_ms_by_role"]
        add(table, label, *(number(ms[r]["median"], ",.1f") if r in ms else "–" for r in names))
    return "ms of a step by role (medians)", table, []


def in_stream(record: dict[str, Any]) -> Shown:
    """The times of a step on a device that works while the host runs ahead."""
    notes = ["alone: started on an idle device; span: between two events around it;"]
    notes += ["marginal: what a streak of forward + backward takes longer for it"]
    table = plain_table("optimizer", "alone", "span", "marginal")
    for label, one in measured(record).items():
        kinds = (one[key] for key in ("step_ms", "span_ms", "marginal_ms"))
        add(table, label, *(milliseconds(ms) if ms else "–" for ms in kinds))
    return "ms of a step (p10–p90)", table, notes


def gaps(record: dict[str, Any]) -> Shown:
    """The share of forward and backward in which the device idles, by the length of the gaps."""
    timeline = record["timeline"]
    table = plain_table("batch", "span, ms", "idle", *map(up_to, (*EDGES, None)))
    notes = ["ms of the gaps of each length; on a CPU gaps between torch's operators"]
    notes += [
        f"{label}: {share['median']:.0%} of what begins early ends in the backward pass"
        for label, share in timeline["hidden_share"].items()
        if share["n"]
    ]
    for batch in timeline["batches"]:
        for how in ("launched", "graph"):
            found = batch[how]
            name = f"{batch['units']:,} {record['unit']}, {how}"
            if found is None or "error" in found:
                notes += [f"{name}: {found['error']}"] if found else []
                continue
            cells = (f"{gap['ms']:.3g}" for gap in found["gaps"])
            idle = f"{found['idle_share']['median']:.1%}"
            add(table, name, f"{found['span_ms']['median']:,.3g}", idle, *cells)
    return "the device in forward + backward", table, notes


def up_to(edge: float | None) -> str:
    return "longer" if edge is None else f"≤ {edge:,g} µs"


def work(record: dict[str, Any]) -> Shown:
    """Memory, and FLOPs with those of the largest measured batch."""
    size = record["batches"][-1] * record["units_per_example"]
    headings = ["state", "temporary", "TFLOP", "of GEMM\npeak", "msign of\nGEMM peak"]
    headings += [f"of fw+bw\nat {size:,}", f"T·m/B\nat {size:,}"]
    table = plain_table("optimizer", *headings)
    for label, one in measured(record).items():
        point = next(point for point in one["overhead"] if point["units"] == size)
        add(
            table,
            label,
            megabytes(one["state_bytes"]["total"]),
            megabytes(one["peak_temporary_bytes"]) + " !" * one["temporary_grows"],
            number(None if one["flops"] is None else one["flops"] / 1e12, ".3g"),
            number(one["gemm_share"], ".0%"),
            number(one.get("orthogonalization_gemm_share"), ".0%"),
            number(point["flop_share"], ".1%"),
            number(point["theory"], ".1%"),
        )
    return "memory and FLOPs of a step", table, work_notes(record)


def work_notes(record: dict[str, Any]) -> list[str]:
    """Notes on the peaks behind the GEMM share, on what could not be counted, and on what grows."""
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
    grows = [label for label, one in measured(record).items() if one["temporary_grows"]]
    return lines + [f"!: more with every step: {', '.join(grows)}"] * bool(grows)


def rate(peak: dict[str, Any] | None) -> str:
    if peak is None:
        return "no rate"
    return f"{peak['flops_per_second'] / 1e12:.2f} TFLOP/s ({peak['product']})"

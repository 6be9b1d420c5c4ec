"""The communication of many processes as tables: measured, predicted, and extrapolated."""

from typing import Any

from rich.table import Table as Shown

from bench.communication import extrapolation
from bench.communication.extrapolation import LEVELS, Point
from bench.communication.model import sent_bytes
from bench.display import terminal
from bench.display.cells import NONE, Cell, Table
from bench.display.numbers import number

MB = 1e6
PARTS = ("communication", "orthogonalization")


def show(record: dict[str, Any]) -> None:
    """Print the tables at the end of a step benchmark of many processes."""
    found = measured({record["name"]: record})
    shown = Shown(title="communication of a process", title_justify="left")
    for head in found.heads[1:]:
        shown.add_column("\n".join(text for text in (head.text, head.small) if text))
    for row in found.rows:
        shown.add_row(*("\n".join(t for t in (cell.text, cell.small) if t) for cell in row[1:]))
    terminal.show(shown)


# measured -----------------------------------------------------------------------------------------


def measured(records: dict[str, dict[str, Any]]) -> Table:
    """One row for forward + backward of each step benchmark, and one for each optimizer's step."""
    heads = [Cell("processes"), Cell("what"), Cell("calls"), Cell("MB sent", "by a process")]
    heads += [Cell("predicted", "MB"), Cell("ms", "communication"), Cell("predicted")]
    heads += [Cell("ms", "orthogonalization"), Cell("predicted")]
    rows = []
    for record in records.values():
        where = Cell(f"{record['parallel']}, {record['world_size']}", where_measured(record))
        known = {k: o["communication"] for k, o in record["optimizers"].items() if not o["error"]}
        first = next(iter(known.values()))["forward_backward"]
        small = f"{first['units']:,} {record['unit']}"
        rows.append([where, Cell("forward + backward", small), *moved(first), *[NONE] * 4])
        for label, one in known.items():
            what = Cell(label, one["sharding"] or "")
            rows.append([where, what, *moved(one["step"]), *times(one["step"])])
    return Table(heads, rows)


def where_measured(record: dict[str, Any]) -> str:
    """The model, and the kind of device if it is not the CPU."""
    device = record.get("device") or "cpu"
    return record["model"] + f" on {device}" * (device != "cpu")


def moved(one: dict[str, Any]) -> list[Cell]:
    """Calls, bytes and predicted bytes."""
    kinds: dict[str, int] = {}
    for rank in one["collectives_by_rank"]:
        kinds |= {kind: found["calls"] for kind, found in rank.items()}
    if not kinds:
        return [Cell("none"), Cell("0"), Cell("0")]
    calls = ", ".join(f"{calls} {kind.replace('_', '-')}" for kind, calls in sorted(kinds.items()))
    return [Cell(calls), *(sent(one[f"{key}_by_rank"]) for key in ("collectives", "predicted"))]


def sent(by_rank: list[dict[str, Any]]) -> Cell:
    """Bytes of the leading process, and below them the range if processes differ."""
    totals = [sent_bytes(rank) / MB for rank in by_rank]
    low, high = (f"{end:.4g}" for end in (min(totals), max(totals)))
    return Cell(f"{totals[0]:.4g}", "" if low == high else f"{low} to {high}")


def times(step: dict[str, Any]) -> list[Cell]:
    """Milliseconds of each part with the prediction, which is for communication with no overlap."""
    found = []
    for part in PARTS:
        ms, predicted = step["ms"].get(part), step["predicted_ms"].get(part)
        bare = step["ms"].get(f"bare_{part}", ms)
        least = ms and ms["least"]
        there = least and least["median"]
        spread = f"{least['p10']:.3g} to {least['p90']:.3g}" if there else ""
        if part == "communication" and step.get("hidden_share") is not None:
            spread += f"; {step['hidden_share']:.0%} hidden"
        found.append(Cell(f"{least['median']:.3g}", spread) if there else NONE)
        if there and predicted:
            ratio = f"measured / predicted {bare['least']['median'] / predicted:.2g}"
            found.append(Cell(number(predicted, ".3g"), ratio))
        else:
            found.append(NONE)
    return found


# extrapolated -------------------------------------------------------------------------------------


def extrapolated(points: list[Point]) -> Table:
    """The number of GPUs from which the parts of a step cost 1 % and 5 % of it."""
    heads = [Cell("model"), Cell("tokens a step"), Cell("strategy")]
    heads += [Cell(f"{part} {level:.0%}", "from GPUs") for part in PARTS for level in LEVELS]
    cases = dict.fromkeys((point.model, point.tokens, point.strategy) for point in points)
    rows = []
    for case in cases:
        own = [p for p in points if (p.model, p.tokens, p.strategy) == case]
        model, tokens, strategy = case
        cells = [Cell(model), Cell(f"{tokens:,}"), Cell(strategy)]
        for part in PARTS:
            for level in LEVELS:
                least = extrapolation.reached(own, part, level)
                cells.append(NONE if least is None else Cell(f"~{least:,}"))
        rows.append(cells)
    return Table(heads, rows)

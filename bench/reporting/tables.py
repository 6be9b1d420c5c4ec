"""The report's tables: rows of cells, written by the page and by the Markdown."""

import statistics
from typing import Any

from bench.display.cells import NONE, Cell, Table
from bench.display.numbers import megabytes, number
from bench.records.archive import Run
from bench.stepping import tables
from bench.studies import curves, lines, stats
from bench.studies import words as report_words
from bench.studies.comparison import Arm, Comparison
from bench.verdicts import evidence


def arms(one: Comparison) -> Table:
    """Each arm's results and costs, then the reference lines; without empty columns."""
    heads = [
        *(Cell("arm"), Cell("rate"), Cell("test loss"), Cell("difference", "to the baseline")),
        *(Cell("verdict"), Cell("bits per byte"), Cell("steps to target"), Cell("accuracy")),
        *(Cell("share", "of a step"), Cell("overhead"), Cell("state")),
        Cell("averaged weights", "test loss"),
    ]
    losses = report_words.common(arm.test_loss for arm in one.arms)
    gaps = report_words.common(a.difference.estimate for a in one.arms if a.difference)
    shares = report_words.common(arm.test_accuracy for arm in one.arms if arm.test_accuracy)
    rows = [arm_row(one, arm, losses, gaps, shares) for arm in one.arms]
    rows += line_rows(one, len(heads))
    kept = [at for at in range(len(heads)) if at < 5 or any(row[at].text != "–" for row in rows)]
    return Table([heads[at] for at in kept], [[row[at] for at in kept] for row in rows])


def arm_row(one: Comparison, arm: Arm, losses: int, gaps: int, shares: int) -> list[Cell]:
    """losses, gaps, shares: decimals of losses, of their differences and of accuracies."""
    difference, accuracy = arm.difference, arm.test_accuracy
    kind = "baseline" if arm.name == one.study.baseline else ""
    if arm.noise:
        kind = f"A/A: {one.study.again()[arm.name]} again"
    loss, interval = report_words.span(arm.test_loss, digits=losses)
    lost = f"; {arm.diverged} diverged" if arm.diverged else ""
    peak = f"peak {megabytes(arm.median('peak_memory_bytes'))}"
    return [
        Cell(arm.name, kind),
        Cell(*report_words.rate(arm, one), "bad" if arm.at_edge else ""),
        Cell(loss, interval + lost),
        Cell(*report_words.span(difference.estimate, "+", digits=gaps)) if difference else NONE,
        verdict(arm),
        bits(one.lines.bits(arm.test_loss.mean) if one.lines and arm.test_loss.n else None),
        Cell(*report_words.to_target(arm)),
        Cell(*report_words.span(accuracy, percent=True, digits=shares)) if accuracy else NONE,
        Cell(report_words.percent(arm.median("optimizer_share"))),
        Cell(*report_words.overhead(arm, one)),
        Cell(megabytes(arm.median("optimizer_state_bytes", "total")), peak),
        averaged(arm, losses),
    ]


def averaged(arm: Arm, digits: int) -> Cell:
    """The test loss of the weights averaged over the last part of the runs."""
    found = [*curves.by_seed(arm.runs, "test_loss_averaged").values()]
    return Cell(*report_words.span(stats.mean_interval(found), digits=digits)) if found else NONE


def line_rows(one: Comparison, columns: int) -> list[list[Cell]]:
    """The results of trivial models, and on which side of each AdamW ends."""
    base, adamw = one.arm(one.study.baseline), lines.judged(one.arms, one.study.baseline)
    rows = []
    for line in one.lines.every if one.lines else ():
        row = [Cell(line["name"], "reference line"), *[NONE] * (columns - 1)]
        row[2] = Cell(report_words.plain(line["loss"], 3))
        if base and base.test_loss.n:
            row[3] = Cell(report_words.plain(line["loss"] - base.test_loss.mean, 3, "+"))
        if adamw:
            above = adamw.test_loss.mean > line["loss"]
            row[4] = Cell(f"{adamw.name} ends {'above' if above else 'below'}")
        row[5] = bits(line.get("bits_per_byte"))
        row[7] = Cell(report_words.percent(line.get("accuracy")))
        rows.append(row)
    return rows


def bits(value: float | None) -> Cell:
    return NONE if value is None else Cell(report_words.plain(value, 3))


def verdict(arm: Arm) -> Cell:
    """The verdict on an arm's difference: the word, further notes, and the test's p."""
    if arm.difference is None:
        return NONE
    words, _, more = report_words.verdict(arm.difference).partition("; ")
    tested = arm.difference.estimate.n > 1
    p = f"p={arm.difference.p:.2g}, {arm.difference.test}" if tested else ""
    tones = {"lower": "good", "higher": "bad", "equal": "same"}
    tone = next((tones[word] for word in tones if words.startswith(word)), "unknown")
    return Cell(words, "; ".join(text for text in (more, p) if text), tone)


def searched(one: Comparison) -> Table | None:
    """The settings that each arm's searches chose: their median and range over studies."""
    rows: dict[str, dict[str, Cell]] = {}
    for arm in one.arms:
        if arm.searched is None or arm.name not in one.study.tuned():
            continue
        points = [trial.point for trial in arm.searched.winners().values()]
        rows[arm.name] = {
            axis: spread([point[axis] for point in points if axis in point]) for axis in points[0]
        }
    axes = list(dict.fromkeys(axis for row in rows.values() for axis in row))
    if not rows:
        return None
    heads = [Cell("arm"), *(Cell(axis, MEANING.get(axis, "")) for axis in axes)]
    return Table(heads, [[Cell(a), *(row.get(x, NONE) for x in axes)] for a, row in rows.items()])


MEANING = {
    "rate": "of the base rate",
    "embedding": "rate, of all",
    "auxiliary": "rate, of all",
    "momentum": "1 − it",
    "newest": "newest gradient's share",
    "beta2": "1 − β₂",
    "beta3": "1 − β₃",
    "decay": "rate × λ × steps",
    "radius": "rate × steps, in a ball",
    "warmup": "share of the run",
}


def spread(values: list[float]) -> Cell:
    low, high = min(values), max(values)
    return Cell(f"{statistics.median(values):.2g}", f"{low:.2g} to {high:.2g}")


def memory(every: list[Comparison]) -> Table:
    """How much of the baseline's memory the arms save, by the memory that counts as the whole."""
    denominators = [*(of.replace("_", " + ") for of in evidence.BYTES), "the measured peak"]
    heads = [Cell("condition"), Cell("arm"), Cell("share", "of a step"), Cell("overhead")]
    heads += [Cell("state"), *(Cell("saved", f"of {of}") for of in denominators)]
    rows = []
    for one in every:
        base = one.arm(one.study.baseline)
        if base is None:
            continue
        for arm in one.arms:
            share = report_words.percent(arm.median("optimizer_share"))
            state = arm.median("optimizer_state_bytes", "total")
            row = [Cell(one.condition), Cell(arm.name), Cell(share)]
            row += [Cell(*report_words.overhead(arm, one)), Cell(megabytes(state))]
            shares = [evidence.saved(arm, base, of) for of in (*evidence.BYTES, "peak")]
            of_each = [statistics.mean(found) if found else None for found in shares]
            rows.append([*row, *(Cell(report_words.percent(share)) for share in of_each)])
    return Table(heads, rows)


def routing(one: Comparison) -> Table:
    """The optimizer of each role, from the first run of each arm."""
    by_arm: dict[str, dict[str, dict[str, tuple[int, int]]]] = {}
    for arm in one.arms:
        for row in arm.runs[0].record.get("routing") or []:
            matrices = sum(count for count, _, _ in row["matrices"] or [])
            taken = by_arm.setdefault(arm.name, {}).setdefault(row["role"], {})
            tensors, blocks = taken.get(row["optimizer"], (0, 0))
            taken[row["optimizer"]] = (tensors + 1, blocks + matrices)
    roles = list(dict.fromkeys(role for taken in by_arm.values() for role in taken))
    rows = [
        [Cell(name), *(taker(taken.get(role, {})) for role in roles)]
        for name, taken in by_arm.items()
    ]
    return Table([Cell("arm"), *map(Cell, roles)], rows)


def taker(found: dict[str, tuple[int, int]]) -> Cell:
    """Muon, 16 tensors as 24 matrices"""
    counts = [
        f"{tensors} tensors" + f" as {matrices} matrices" * (matrices > 0)
        for tensors, matrices in found.values()
    ]
    return Cell(", ".join(found) or "–", "; ".join(counts))


def steps(record: dict[str, Any]) -> Table:
    """A step benchmark: times, overheads, and the batches from which these are small."""
    unit, least = record["unit"], record["batches"][0] * record["units_per_example"]
    sizes = [size * record["units_per_example"] for size in record["batches"]]
    marginal = any(one.get("marginal_ms") for one in record["optimizers"].values())
    heads = [Cell("optimizer"), Cell("ms of a step", "p10–p90")]
    heads += [Cell("marginal ms", "in consecutive steps")] * marginal
    heads += [Cell("overhead", f"at {size:,} {unit}") for size in sizes]
    heads += [Cell(f"{level} from", unit) for level in tables.LEVELS.values()]
    heads += [Cell("state"), Cell("temporary", "memory"), Cell("FLOP rate", "of the GEMM peak")]
    rows = []
    for label, one in record["optimizers"].items():
        if one["error"]:
            failed = [Cell("failed", one["error"], "bad")]
            rows.append([Cell(label), *failed, *[NONE] * (len(heads) - 2)])
            continue
        points = {point["units"]: point["value"] for point in one["overhead"]}
        texts = [f"{points[size]:+.1%}".replace("-", "−") for size in sizes]
        ends = [one["units_at"][level] for level in tables.LEVELS]
        texts += [tables.reached(end, least) for end in ends]
        rows.append(
            [
                Cell(label),
                milliseconds(one["step_ms"]),
                *[milliseconds(one.get("marginal_ms"))] * marginal,
                *map(split, tables.compared(record, label, texts)),
                Cell(megabytes(one["state_bytes"]["total"])),
                Cell(megabytes(one["peak_temporary_bytes"])),
                Cell(report_words.percent(one["gemm_share"], places=0)),
            ]
        )
    return Table(heads, rows)


def milliseconds(ms: dict[str, Any] | None) -> Cell:
    return split(tables.milliseconds(ms)) if ms else NONE


def split(text: str) -> Cell:
    """Text in brackets goes on the smaller line."""
    main, _, small = text.partition(" (")
    return Cell(main, small.removesuffix(")"))


def loose(runs: list[tuple[str, Run]]) -> Table:
    """Runs outside declared experiments, each with the path of its record."""
    heads = ["run", "rate", "steps", "validation loss", "test loss", "command"]
    rows = [
        [
            Cell(run.record["cell"], place),
            Cell(f"{run.record['lr_scale']:g}"),
            Cell(f"{run.record['steps']:,}", run.record["status"]),
            Cell(number(run.record.get("val_loss"))),
            Cell(number(run.record.get("test_loss"))),
            Cell(run.record.get("command") or "–"),
        ]
        for place, run in runs
    ]
    return Table([Cell(head) for head in heads], rows)

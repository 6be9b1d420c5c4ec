"""README.md's generated part: one table of losses, time and memory, and what its words mean."""

from typing import Any

from bench.display.cells import NONE, Cell, Table
from bench.display.numbers import megabytes
from bench.reporting import answer, findings
from bench.reporting.answer import ADAMW, CHOICES, TASKS
from bench.reporting.content import Content
from bench.stepping import tables
from bench.studies import standing
from bench.studies.comparison import Comparison
from bench.studies.words import about, lender, span, unit_of

STEP = "gpt2-"  # the names of GPT-2 small's step benchmarks begin with it
AT = 8192  # tokens of the step whose extra time is shown


def table(content: Content) -> Table:
    """One column per optimizer; rows of losses, then of GPT-2 small's memory and time."""
    every = answer.of_optimizers(content.comparisons)
    rows = []
    for timed, words in ((False, "same number of steps"), (True, "same time")):
        found = [one for one in every if bool(one.study.equal_time_of) == timed]
        rows += [losses(one, words) for one in answer.strongest(found)]
    shown = [one for name, one in content.steps.items() if name.startswith(STEP)]
    rows += [row for number, one in enumerate(shown) for row in costs(one, state=number == 0)]
    return Table([Cell("compared with AdamW"), *map(Cell, CHOICES)], rows)


def losses(one: Comparison, words: str) -> list[Cell]:
    """AdamW's test loss in the first cell, then the differences from it."""
    early = "; early training, not judged" if standing.early(one) else ""
    base = one.arm(ADAMW)
    known = base is not None and base.test_loss.n > 0
    loss = f" (AdamW {span(base.test_loss)[0]})" if base is not None and known else ""
    notes = about(one) + (f"; settings of {source}" if (source := lender(one, one.arms)) else "")
    cells = [Cell(f"Test loss on {TASKS[unit_of(one)]}, {words}{loss}{early}", notes)]
    for name in CHOICES:
        arm = one.arm(name)
        found = arm.difference if arm else None
        cells.append(Cell(*findings.size(found.estimate)) if found else NONE)
    return cells


def costs(record: dict[str, Any], state: bool) -> list[list[Cell]]:
    """The state, which is the same on all devices, and a step's extra time over AdamW's."""
    environment = record["environment"]
    device = environment["gpu"] or f"{environment['cpu']}, a CPU"
    base = record["optimizers"][record["reference"]]["state_bytes"]["total"]
    columns = [cost(record, name, base) for name in CHOICES]
    held, extra, under = (list(row) for row in zip(*columns, strict=True))
    head = Cell(f"GPT-2 small: optimizer memory (AdamW {megabytes(base)})")
    unit = record["unit"]
    return [
        *([[head, *held]] if state else []),
        [Cell(f"GPT-2 small: extra time per step of {AT:,} {unit}", device), *extra],
        [Cell(f"GPT-2 small: {unit} per step that keep it below 5 %", device), *under],
    ]


def cost(record: dict[str, Any], name: str, base: float) -> list[Cell]:
    """An optimizer's state, its extra time, and the batch from which that time is small."""
    one = record["optimizers"].get(name)
    if one is None or one["error"]:
        return [NONE] * 3
    least = record["batches"][0] * record["units_per_example"]
    point = next((p for p in one["overhead"] if p["units"] == AT), None)
    extra = f"{'' if point['measured'] else '~'}{point['value']:+.0%}" if point else "–"
    texts = [extra, tables.reached(one["units_at"][tables.LOWEST], least)]
    state = f"{one['state_bytes']['total'] / base - 1:+.0%}"
    return [minus(text) for text in (state, *tables.compared(record, name, texts))]


def minus(text: str) -> Cell:
    """Put text in brackets on the smaller line, with typographic signs."""
    main, _, small = text.replace("-", "−").replace("%", " %").partition(" (")
    return Cell(main, small.removesuffix(")").replace("–", " to "))


LEAD = (
    "Muon orthogonalizes each update of a weight matrix. *hybrid* is what most people call Muon: "
    "Muon on the hidden matrices, AdamW on embeddings, head, biases and norms. *muon* is Muon on "
    "every parameter; a vector's update is scaled to length 1."
)
NOTE = (
    "Test losses in nats, minus AdamW's with the same seed: mean, 95 % interval and number of "
    "seeds; below 0 is better. ~: estimated from smaller batches, with its 95 % interval."
)

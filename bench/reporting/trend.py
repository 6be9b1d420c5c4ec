"""How the difference from AdamW changes with the horizon and the batch, and at equal time."""

from bench.display.cells import NONE, Cell, Table
from bench.reporting import answer, findings
from bench.reporting.answer import ADAMW
from bench.reporting.content import Content
from bench.studies import standing, words
from bench.studies.comparison import Arm, Comparison
from bench.studies.words import batch, plain, span, unit_of

NOTE = (
    "AdamW's test loss, and that of the others minus AdamW's, each tuned for itself: in nats, with "
    "95 % interval and number of seeds, and in bits per byte."
)


def tables(content: Content) -> dict[str, Table]:
    """For each model with several conditions by the present protocol, one row a condition."""
    by_model: dict[str, list[Comparison]] = {}
    for one in answer.present(content.comparisons):
        if one.study.search is not None and not one.study.cost_of:  # a ranking repeats trials
            models = {run.record["model"] for arm in one.arms for run in arm.runs}
            by_model.setdefault(", ".join(sorted(models)) + one.on_device, []).append(one)
    return {name: table(every) for name, every in by_model.items() if len(every) > 1}


def table(every: list[Comparison]) -> Table:
    shown = {arm.name for one in every for arm in findings.tested(one)}
    names = dict.fromkeys(name for one in every for name in one.study.arms if name in shown)
    heads = [Cell("trained for"), Cell("equal"), Cell(ADAMW), *map(Cell, names)]
    return Table(heads, [row(one, list(names)) for one in sorted(every, key=place)])


def place(one: Comparison) -> tuple[bool, float, int]:
    """The order of rows: by what is equal, by the batch, by the steps."""
    base = one.arm(ADAMW)
    units = base.median(f"{unit_of(one)}_per_step") if base else None
    return bool(one.study.equal_time_of), units or 0.0, steps(one)


def steps(one: Comparison) -> int:
    """Those of the arm that takes most: an experiment of equal time shortens the others."""
    return max(run.record["steps"] for arm in one.arms for run in arm.runs)


def row(one: Comparison, names: list[str]) -> list[Cell]:
    base = one.arm(ADAMW)
    arms = {arm.name: arm for arm in findings.tested(one)}
    known = words.lender(one, one.arms)
    notes = [
        "early training, not judged" if standing.early(one) else "",
        f"settings of {known}" if known else "",
    ]
    return [
        Cell(f"{steps(one):,} steps of {batch(one)}", "; ".join(filter(None, notes))),
        Cell("time" if one.study.equal_time_of else "steps"),
        loss(one, base) if base else NONE,
        *(difference(one, arms[name]) if name in arms else NONE for name in names),
    ]


def loss(one: Comparison, base: Arm) -> Cell:
    number, interval = span(base.test_loss)
    return Cell(number, f"{interval}{bits(one, base.test_loss.mean)}")


def difference(one: Comparison, arm: Arm) -> Cell:
    assert arm.difference is not None
    number, interval = findings.size(arm.difference.estimate)
    return Cell(number, f"{interval}{bits(one, arm.difference.estimate.mean, '+')}")


def bits(one: Comparison, value: float, sign: str = "") -> str:
    found = one.lines.bits(value) if one.lines else None
    return "" if found is None else f"; {plain(found, 3, sign)} bits per byte"

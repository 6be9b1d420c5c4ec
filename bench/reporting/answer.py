"""The answer in two sentences: the optimizer with the lower loss, by how much, and its limits.

A pure function of the comparisons. It claims no more than their tests show, and states beside each
claim what weakens it: early training, one tuning search, few seeds, missing runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.records import archive
from bench.reporting.findings import size
from bench.studies import standing
from bench.studies.comparison import Arm, Comparison
from bench.studies.difference import BEYOND, EQUAL, SIZE_OPEN, SMALLER, UNSHOWN
from bench.studies.study import Study, starts
from bench.studies.words import about, plain, unit_of

ADAMW = "adamw"
CHOICES = ("hybrid", "muon")  # what users choose besides AdamW; other arms are controls
FEW = 5  # seeds: a smaller number is mentioned
TASKS = {"tokens": "text", "images": "images"}
UNTESTED = ("larger models", "longer training")


@dataclass(frozen=True)
class Answer:
    """finding: the sentence on the losses; limits: the sentence on its basis."""

    finding: str
    limits: str


def answer(comparisons: dict[str, list[Comparison]]) -> Answer:
    """The answer; comparisons: by experiment, as in a report's Content."""
    every = of_optimizers(comparisons)
    steps = strongest(one for one in every if not one.study.equal_time_of)
    times = strongest(one for one in every if one.study.equal_time_of)
    if not steps + times:
        return Answer(
            "Which optimizer reaches the lower loss is not answered yet: no two have been "
            "compared over two seeds or more.",
            "experiment=language compares them, at equal steps; experiment=equal_time does, in "
            "equal time.",
        )
    common = shared(steps)
    said = []
    for equal, found, known in (("at equal steps", steps, common), ("in equal time", times, [])):
        clauses = [clause(one, every, known) for one in found]
        said.append(f"{equal} " + ("; ".join(clauses) or "nothing has been compared yet"))
    finding = f"preliminary ({'; '.join(common)}): " * bool(common) + "; ".join(said)
    return Answer(f"{finding[0].upper()}{finding[1:]}.", limits(steps + times))


def shared(every: list[Comparison]) -> list[str]:
    """The weaknesses that all of several comparisons have."""
    each = [weaknesses(one) for one in every]
    return [one for one in each[0] if all(one in of for of in each)] if len(each) > 1 else []


def of_optimizers(comparisons: dict[str, list[Comparison]]) -> list[Comparison]:
    """The comparisons of other optimizers with AdamW, over several seeds."""
    return [one for every in comparisons.values() for one in every if with_adamw(one)]


def with_adamw(one: Comparison) -> bool:
    others = {arm.runs[0].record["optimizer"] for arm in one.arms if not arm.noise}
    several = len(one.study.final_seeds) > 1
    begins = not one.study.continues and one.study.name not in starts()
    return begins and one.study.baseline == ADAMW and several and bool(others - {ADAMW})


def present(comparisons: dict[str, list[Comparison]]) -> list[Comparison]:
    """Of these comparisons those by the present protocol; of a task without any, by an earlier."""
    every = of_optimizers(comparisons)
    searched = {unit_of(one) for one in every if one.study.search is not None}
    return [one for one in every if one.study.search is not None or unit_of(one) not in searched]


def strongest(every: Iterable[Comparison]) -> list[Comparison]:
    """For each task and kind of device the comparison with the most evidence.

    A judged one precedes early training, the present protocol precedes an earlier one, and among
    these the one that saw the most data comes first.
    """
    found: dict[tuple[str, str], Comparison] = {}
    for one in every:
        if not shown(one):
            continue
        key = (unit_of(one), device(one))
        if key not in found or rank(one) > rank(found[key]):
            found[key] = one
    return [found[key] for key in sorted(found, reverse=True)]


def rank(one: Comparison) -> tuple[bool, bool, float]:
    return standing.early(one) is None, one.study.search is not None, seen(one)


def shown(one: Comparison) -> list[Arm]:
    """The arms in the answer: those with an interval among the ones that users choose from."""
    tested = [a for a in one.arms if a.difference and a.difference.estimate.n > 1 and not a.noise]
    return [arm for arm in tested if arm.name in CHOICES] or tested


def clause(one: Comparison, every: list[Comparison], known: list[str]) -> str:
    """on text (gpt2_nano, …) hybrid ends 0.498 nats lower than AdamW (95 % …, n=5), muon …

    known: weaknesses that are stated elsewhere.
    """
    where = f"on {TASKS[unit_of(one)]} ({about(one)} on {device(one)})"
    weak = [said for said in weaknesses(one) if said not in known]
    if why := standing.early(one):
        return f"{where} which one is better is not judged: {', '.join([why, *weak])}"
    arms = sorted(shown(one), key=lambda arm: arm.difference.estimate.mean if arm.difference else 0)
    said = [outcome(arm, one.study) for arm in arms]
    if len({side_of(arm) for arm in arms}) == 1 and side_of(arms[0]):
        said = [said[0], *(further(arm) for arm in arms[1:])]  # the same for all, in short
    said += [f"{other} finds the contrary" for other in contrary(one, every)]
    return f"{where} {', '.join(said)}" + (f" – {', '.join(weak)}" if weak else "")


def further(arm: Arm) -> str:
    """The text on an arm whose outcome has the same side as that of the arm before it."""
    assert arm.difference is not None
    number, interval = size(arm.difference.estimate)
    return f"{arm.name} {number.lstrip('+−')} ({interval})"


def outcome(arm: Arm, study: Study) -> str:
    """What is shown of an arm, in words that its tests justify."""
    found = arm.difference
    assert found is not None
    number, interval = size(found.estimate)
    name, side, within = arm.name, found.side, margin(study)
    words = {
        BEYOND: f"{name} ends {number.lstrip('+−')} nats {side} than AdamW",
        SMALLER: f"{name} ends {side} than AdamW, but by less than {within}",
        EQUAL: f"{name} and AdamW end equal, within {within}",
        SIZE_OPEN: f"{name} ends {side} than AdamW, but whether by more than {within} is open",
        UNSHOWN: f"no difference between {name} and AdamW is shown",
    }
    return f"{words[found.case]} (95 % {interval})"


def margin(study: Study) -> str:
    return f"{study.margin:g} nats" if study.margin else "nothing"


def contrary(one: Comparison, every: list[Comparison]) -> list[str]:
    """Other comparisons of this task where an arm lies beyond the margin on the other side."""
    sides = {a.name: side for a in shown(one) if (side := side_of(a))}
    return [
        f"{other.study.name} ({other.condition})"
        for other in every
        if other is not one and unit_of(other) == unit_of(one) and not standing.early(other)
        if bool(other.study.equal_time_of) == bool(one.study.equal_time_of)
        if any(side_of(arm) == -sides.get(arm.name, 0) != 0 for arm in shown(other))
    ]


def side_of(arm: Arm) -> int:
    """-1: shown to be lower, 1: shown to be higher, 0: neither."""
    found = arm.difference
    if found is None or found.outcome != BEYOND:
        return 0
    return -1 if found.side == "lower" else 1


def weaknesses(one: Comparison) -> list[str]:
    """What readers must know before they rely on a difference."""
    why = standing.early(one)
    arms = [one.arm(ADAMW), *shown(one)]
    own = [arm for arm in arms if arm is not None]
    seeds = min((a.difference.estimate.n for a in shown(one) if a.difference), default=0)
    edges = [arm.name for arm in own if arm.at_edge]
    lost = sum(arm.diverged for arm in own)
    return [
        *(
            ["one tuning search per optimizer, of its rate alone"]
            if one.study.search is None
            else []
        ),
        *(["early training not ruled out"] if one.early is None and not why else []),
        *([f"{seeds} seeds only"] if seeds < FEW else []),
        *([f"rate of {' and '.join(edges)} at the edge of what was tried"] if edges else []),
        *([f"{lost} runs diverged"] if lost else []),
        *([f"{one.missing} runs of {one.study.name} missing"] if one.missing > 0 else []),
        *one.left_out,
    ]


def limits(found: list[Comparison]) -> str:
    """The size of the comparisons, and what was not tested."""
    return f"That is for {tested(found)}; not tested: {', '.join(untested(found))}."


def tested(found: list[Comparison]) -> str:
    """The size of the models, and the most data that a run saw."""
    sizes = sorted(of for one in found for arm in one.arms if (of := arm.median("parameters")))
    millions = [plain(of / 1e6, 1) for of in (sizes[0], sizes[-1])]
    most = [
        f"{max(map(seen, those)):,.0f} {unit}" for unit in TASKS if (those := by_unit(found, unit))
    ]
    models = " to ".join(dict.fromkeys(millions))
    return f"models of {models} M parameters and runs of up to {' or '.join(most)}"


def untested(found: list[Comparison]) -> list[str]:
    absent = [unit for unit in TASKS if not by_unit(found, unit)]
    devices = {device(one) for one in found}
    return [
        *UNTESTED,
        *([] if absent else ["other tasks"]),
        *(f"{NAMES[unit]} models" for unit in absent),
        *(name for kind, name in DEVICES.items() if kind not in devices),
    ]


NAMES = {"tokens": "language", "images": "image"}
DEVICES = {"cpu": "CPUs", "cuda": "GPUs"}


def by_unit(found: list[Comparison], unit: str) -> list[Comparison]:
    return [one for one in found if unit_of(one) == unit]


def seen(one: Comparison) -> float:
    """The number of tokens or images that a run trains on."""
    steps = max(run.record["steps"] for arm in one.arms for run in arm.runs)
    return steps * (one.arms[0].median(f"{unit_of(one)}_per_step") or 0)


def device(one: Comparison) -> str:
    return str(archive.setup(one.arms[0].runs[0].record).device)

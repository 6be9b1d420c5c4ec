"""docs/leaderboard.md: the arms of experiment=field by how soon they reach AdamW's loss."""

import math
from statistics import fmean

from bench.display.cells import NONE, Cell, Table
from bench.display.numbers import duration, megabytes
from bench.reporting import outside, to_run
from bench.reporting.content import Content
from bench.reporting.marked import escaped, table
from bench.settings.schema import choices_of
from bench.studies import ranking, standing, study, words
from bench.studies.comparison import Comparison
from bench.studies.difference import Difference
from bench.studies.ranking import Ranked
from bench.studies.study import Study
from bench.studies.trials import Found

FIELD = "field"
HEADS = (
    Cell("by steps"),
    Cell("arm"),
    Cell("by seconds"),
    Cell("test loss", "to the baseline"),
    Cell("verdict"),
    Cell("steps", "to the baseline's loss"),
    Cell("ms a step", "measured alone"),
    Cell("time to it"),
    Cell("tuning curve", "best of 1, half, all trials"),
    Cell("state"),
)
NOTE = (
    "By steps, by seconds: the order in which arms reach the validation loss that the baseline "
    "ends with, paired by seed, the median; between evaluations a straight line. Time: these steps "
    "times a step's cost measured alone. In brackets by how many places an arm moves between the "
    "two. A place is an order of medians; whether an arm differs from the baseline is the verdict, "
    "on test losses (a paired t test against the margin, corrected by Holm over all arms; the "
    "interval beside it, of 95 %, is not corrected). Where the baseline ends above the bigram, "
    "nothing is judged. Tuning curve: the validation loss of the best of so many trials, the mean "
    "over the searches. State: what the optimizer keeps; peak: the most memory that a run held."
)
OTHERS = (
    "Theirs, not ours: other models, data and tuning. They stand here for the eye; with so few "
    "methods in common no correlation is computed or claimed."
)


def ranks(one: Comparison, content: Content) -> Table:
    """The arms of a comparison, the first to reach the baseline's loss at the top."""
    step = content.steps.get(one.study.cost_of.get(one.declared_as, ""))
    sources = outside.load() if one.study.name == FIELD else []
    rows = [
        row(ranked, one, content) + [outside.beside(ranked.arm.name, sources)] * bool(sources)
        for ranked in ranking.ranked(one, step)
    ]
    return Table([*HEADS, *[Cell("others'", "not our measurement")] * bool(sources)], rows)


def row(ranked: Ranked, one: Comparison, content: Content) -> list[Cell]:
    arm = ranked.arm
    difference = arm.difference
    baseline = "baseline" if arm.name == one.study.baseline else ""
    source = words.lender(one, [arm])
    borrowed = f"trials of {source}" if source else ""
    never = f"not by {ranked.never} of {len(arm.runs)} runs" if ranked.never else ""
    steps = "not reached" if ranked.steps is None else f"{ranked.steps:,.0f}"
    cost = ranked.step_seconds
    peak = f"peak {megabytes(arm.median('peak_memory_bytes'))}"
    return [
        Cell(f"{ranked.by_steps or '–'}"),
        Cell(arm.name, "; ".join(filter(None, (baseline, borrowed)))),
        Cell(f"{ranked.by_seconds or '–'}", moved(ranked)),
        Cell(*words.span(difference.estimate, "+")) if difference else NONE,
        verdict(one, difference),
        Cell(steps, never),
        NONE if cost is None else Cell(f"{1e3 * cost:,.1f}"),
        NONE if ranked.seconds is None else Cell(duration(ranked.seconds)),
        tuning_curve(searched(arm.name, one, content)),
        Cell(megabytes(arm.median("optimizer_state_bytes", "total")), peak),
    ]


def verdict(one: Comparison, difference: Difference | None) -> Cell:
    if difference is None:
        return NONE
    return (
        Cell("not judged", "early training")
        if standing.early(one)
        else Cell(words.verdict(difference))
    )


def moved(ranked: Ranked) -> str:
    """By how many places an arm stands higher or lower by seconds than by steps."""
    if ranked.by_steps is None or ranked.by_seconds is None:
        return ""
    places = ranked.by_steps - ranked.by_seconds
    return f"{'up' if places > 0 else 'down'} {abs(places)}" if places else "same"


def searched(arm: str, one: Comparison, content: Content) -> Found | None:
    """The searches of an arm, or those that it borrows from another experiment."""
    own = one.arm(arm)
    search = one.study.search
    if own is None or own.searched or search is None or arm not in search.takes:
        return own.searched if own else None
    name, condition = search.carry[one.declared_as].source.split("/")
    for other in content.comparisons.get(name, []):
        theirs = other.arm(search.takes[arm])
        if (other.declared_as, other.device) == (condition, one.device) and theirs:
            return theirs.searched
    return None


def tuning_curve(found: Found | None) -> Cell:
    if found is None:
        return NONE
    sizes = dict.fromkeys((1, max(1, found.trials // 2), found.trials))
    means = [fmean(found.best_of(size)) for size in sizes]
    lost = sum(math.isinf(trial.loss) for trials in found.studies.values() for trial in trials)
    return Cell(
        ", ".join(words.plain(mean, 3) if math.isfinite(mean) else "–" for mean in means),
        f"{lost} of {found.trials * len(found.studies)} diverged" if lost else "",
    )


# the page -----------------------------------------------------------------------------------------


def text(content: Content) -> str:
    """What docs/leaderboard.md generates: the table, or what it would take; then others' tables."""
    every = content.comparisons.get(FIELD, [])
    archive, declared = content.results.archive, study.load(FIELD)
    parts = []
    for one in every:
        parts += [f"**{one.condition}**: {escaped(words.about(one))}.", table(ranks(one, content))]
        parts += [escaped(said)] if (said := standing.standing(one)) else []
    if every:
        parts.append(NOTE)
        parts += [f"Limits: {declared.limits}."] if declared.limits else []
    else:
        parts.append("No run of `experiment=field` has been published, so there is no table yet.")
    if any(to_run.missing(declared, archive).values()):
        parts.append(f"What is missing: {escaped(to_run.line(declared, archive))}.")
    absent = [name for name in declared.cost_of.values() if name not in content.steps]
    if absent:
        parts.append(f"Missing for the ranking by seconds: the step benchmark {', '.join(absent)}.")
    if others := without_row(declared):
        names = ", ".join(f"`{name}`" for name in others)
        takes = escaped(to_run.row(declared, archive))
        parts.append(f"Ready to run, without a row: {names}. A row takes {takes}.")
    sources = outside.load()
    measures = "\n".join(
        f"- {one.name}: {one.measures} ({one.source}; {one.date})." for one in sources
    )
    return "\n\n".join(
        [*parts, f"### Others' tables\n\n{OTHERS}", measures, table(outside.table(sources))]
    )


def without_row(declared: Study) -> list[str]:
    """The optimizers in conf/optimizer that no arm takes."""
    taken = {word for words_of in declared.arms.values() for word in words_of}
    return [name for name in choices_of("optimizer") if f"optimizer={name}" not in taken]

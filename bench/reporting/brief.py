"""The answer without numbers: README's first lines, above the table that has them."""

from bench.reporting import answer
from bench.reporting.answer import DEVICES, TASKS
from bench.studies import standing
from bench.studies.comparison import Arm, Comparison
from bench.studies.difference import BEYOND, EQUAL, SIZE_OPEN, SMALLER, UNSHOWN
from bench.studies.study import Study
from bench.studies.words import unit_of


def brief(comparisons: dict[str, list[Comparison]]) -> str:
    """The verdict and its limits as Markdown; comparisons: by experiment, as in Content."""
    every = answer.of_optimizers(comparisons)
    steps = answer.strongest(one for one in every if not one.study.equal_time_of)
    times = answer.strongest(one for one in every if one.study.equal_time_of)
    found = steps + times
    if not found:
        said = answer.answer(comparisons)
        return f"**Not answered yet.** {said.finding} {said.limits}"
    weak = weak_points(found)
    contrary = any(answer.contrary(one, every) for one in found)
    settled = times and not weak and not contrary and not any(map(standing.early, found))
    verdict = " ".join(
        [
            *([] if settled else ["**Not settled.**"]),
            sentence("With the same number of steps", steps),
            sentence("In the same time", times),
        ]
    )
    devices = sorted({DEVICES.get(kind, kind) for kind in map(answer.device, found)})
    points = [
        ("Tested", f"{answer.tested(found)}, on {' and '.join(devices)}"),
        ("Not tested", ", ".join(answer.untested(found))),
        ("Weak points", "; ".join([*weak, *(["other comparisons disagree"] if contrary else [])])),
    ]
    return "\n".join([verdict, "", *(f"- **{name}**: {of}" for name, of in points if of)])


def weak_points(found: list[Comparison]) -> list[str]:
    """What weakens all comparisons; then, by task, what weakens those on it alone."""
    each = [(TASKS[unit_of(one)], answer.weaknesses(one)) for one in found]
    common = [why for why in each[0][1] if all(why in own for _, own in each)]
    by_task: dict[str, dict[str, None]] = {}
    for task, own in each:
        by_task.setdefault(task, {}).update(dict.fromkeys(w for w in own if w not in common))
    return [*common, *(f"on {task}: {', '.join(own)}" for task, own in by_task.items() if own)]


def sentence(where: str, found: list[Comparison]) -> str:
    """Outcomes with the same words are said once, for all optimizers and tasks that have them."""
    if not found:
        return f"{where}, nothing has been compared yet."
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for one in found:
        for names, words in outcomes(one):
            groups.setdefault((names, words), []).append(f"on {TASKS[unit_of(one)]}")
    clauses = [
        " ".join([*([" and ".join(names)] if names else []), said, " and ".join(tasks)])
        for (names, said), tasks in groups.items()
    ]
    return f"{where}, {'; '.join(clauses)}."


def outcomes(one: Comparison) -> list[tuple[tuple[str, ...], str]]:
    """The names of arms that share an outcome, and the words for it."""
    if standing.early(one):
        return [((), "which optimizer is better is not judged (early training)")]
    by_words: dict[str, list[str]] = {}
    for arm in answer.shown(one):
        by_words.setdefault(words(arm, one.study), []).append(arm.name)
    return [
        (tuple(names), said if len(names) > 1 else said.replace("reach ", "reaches ", 1))
        for said, names in by_words.items()
    ]


def words(arm: Arm, study: Study) -> str:
    """What an arm's tests justify, as a plural predicate."""
    found = arm.difference
    assert found is not None
    within = answer.margin(study)
    return {
        BEYOND: f"reach a {found.side} test loss than AdamW",
        SMALLER: f"reach a {found.side} test loss than AdamW, by less than {within},",
        EQUAL: f"reach the same test loss as AdamW, within {within},",
        SIZE_OPEN: f"reach a {found.side} test loss than AdamW, by an unknown amount,",
        UNSHOWN: "reach a test loss with no shown difference from AdamW's",
    }[found.case]

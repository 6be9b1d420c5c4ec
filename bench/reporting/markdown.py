"""results/README.md, and the parts of README.md that come from records, in Markdown."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any
from urllib.parse import quote

from bench.communication import tables as communication_tables
from bench.display.cells import Table
from bench.reporting import communication as report_communication
from bench.reporting import findings, own_markdown
from bench.reporting import tables as report_tables
from bench.reporting.content import Content
from bench.reporting.marked import cells, escaped, folded, table
from bench.studies import words
from bench.studies.comparison import Comparison
from bench.verdicts import waiting
from bench.verdicts.claims import TOPICS
from bench.verdicts.judging import CONFIRMED, DEPENDS, OPEN, REFUTED, Verdict

HEADLINE = "optimizers"  # the experiment that README.md leads with
SHOWN = (HEADLINE, "qkv", "orthogonalizer", "cost")  # those with a part of README.md to themselves
STEP = "gpt2-"  # with what the names of the step benchmarks begin that it shows
EXTRAPOLATED = "communication-extrapolated"  # a picture
KINDS = ("loss", "tuning")  # pictures of one condition


BY_THEOREM = "True by a theorem; checked numerically"
BEGINNING = "# Results\n\nMade by `make results`"  # by this a report knows its own


def results_page(content: Content, shown: Collection[str]) -> str:
    """results/README.md, whole; shown: the places of its pictures."""
    parts = [
        BEGINNING + " from the records in this folder; nothing here is typed by hand. "
        "[`report.html`](report.html) is the same with interactive charts, "
        "[`records.csv`](records.csv) has one line a run, [`verdicts.json`](verdicts.json) the "
        "verdicts with their numbers and records.",
        *own_markdown.your_runs(content, shown),
        f"## Verdicts\n\n{tally(tested(content.verdicts))}",
        *claims_tables(content.verdicts),
    ]
    for name, every in content.comparisons.items():
        parts += [f"## {name}", *experiment(content, every, shown)]
    for name, one in content.steps.items():
        parts += [f"## A step: {escaped(name)}", table(report_tables.steps(one)), made([one])]
        drawn = image(findings.overhead(one), quote(picture(name)))
        parts += [drawn] if picture(name) in shown else []
    parts += communication(content, shown)
    parts += ["## Not run", *not_run(content), "## Left out", *left_out(content)]
    return "\n\n".join(parts) + "\n"


def experiment(content: Content, every: list[Comparison], shown: Collection[str]) -> list[str]:
    """One experiment: its question, and each condition's table and pictures."""
    study = every[0].study
    parts = [f"*{study.question}*", *([f"Limits: {study.limits}."] if study.limits else [])]
    parts += [f"**{one.condition}**: {escaped(words.answer(one))}" for one in every]
    if picture(study.name) in shown:
        parts.append(image(findings.differences(every), picture(study.name)))
    for one in every:
        missing = escaped("; ".join(words.missing(one)))
        parts += [f"### {study.name}, {one.condition}", f"{escaped(words.about(one))}."]
        parts += [f"**Missing:** {missing}."] if missing else []
        parts.append(table(report_tables.arms(one)))
        chosen = report_tables.searched(one)
        parts += ["What the searches chose:", table(chosen)] if chosen else []
        parts.append("\n".join(f"- {escaped(note)}" for note in words.notes(one)))
        drawn = {kind: picture(study.name, one.condition, kind) for kind in KINDS}
        alt = {"loss": findings.curve, "tuning": findings.tuning}
        parts += [image(alt[kind](one), at) for kind, at in drawn.items() if at in shown]
    records = [run.record for one in every for arm in one.arms for run in arm.runs]
    return [*parts, made(records)]


def communication(content: Content, shown: Collection[str]) -> list[str]:
    """What many processes communicate; and, extrapolated, what more of them would."""
    if not content.shared:
        return []
    parts = ["## Communication", report_communication.LEAD]
    parts.append(table(communication_tables.measured(content.shared)))
    parts.append(made(content.shared.values()))
    parts += ["### Communication at scale, extrapolated", report_communication.lead_extrapolated()]
    place = picture(EXTRAPOLATED)
    drawn = image(findings.extrapolated(content.extrapolated), place)
    parts += [drawn] if place in shown else []
    return [*parts, table(communication_tables.extrapolated(content.extrapolated))]


def image(finding: str, place: str) -> str:
    """A picture, with what it shows for those who do not see it."""
    return f"![{escaped(finding)}]({place})"


def picture(*names: str) -> str:
    return f"pictures/{'-'.join(names).replace(' ', '-')}.svg"


# the parts of README.md --------------------------------------------------------------------------


def answers(content: Content, experiment: str) -> str:
    """What an experiment found: a sentence and a table a condition, and the differences drawn.

    Of the main one the curves of the loss are drawn, too: elsewhere they lie on one another.
    """
    parts = []
    for one in content.comparisons.get(experiment, []):
        missing = escaped("; ".join(words.missing(one)))
        parts += [
            f"**{one.condition}** ({escaped(words.about(one))}): {escaped(words.answer(one))}",
            table(report_tables.arms(one)),
            *([f"Missing: {missing}."] if missing else []),
        ]
        if experiment == HEADLINE:
            drawn = picture(experiment, one.condition, "loss")
            parts.append(image(findings.curve(one), f"results/{drawn}"))
    every = content.comparisons.get(experiment, [])
    alt = findings.differences(every) if every else "Nothing was run."
    parts.append(image(alt, f"results/{picture(experiment)}"))
    records = [run.record for run in content.results.archive.of(experiment)]
    return "\n\n".join([*parts, made(records)])


def cost(content: Content) -> str:
    records = [run.record for run in content.results.archive.of("cost")]
    shown = table(report_tables.memory(content.comparisons.get("cost", [])))
    return f"{shown}\n\n{made(records)}"


def step(content: Content) -> str:
    """A table each, named where there are several."""
    shown = {name: one for name, one in content.steps.items() if name.startswith(STEP)}
    parts = []
    for name, one in shown.items():
        noise = one["noise"]["difference_ms"]["ms"]
        parts += [f"**{escaped(name)}**"] if len(shown) > 1 else []
        parts += [
            table(report_tables.steps(one)),
            f"AdamW against itself differs by up to {noise:.{0 if noise >= 1 else 2}f} ms; ~: "
            f"extrapolated. {made([one])}",
        ]
    return "\n\n".join(parts) or f"There is no whole results/steps/{STEP}*.json."


def others(content: Content) -> str:
    """What the experiments found that have no part of their own: a line a condition."""
    lines = []
    for name, every in content.comparisons.items():
        if name not in SHOWN:
            lines.append(f"- **{every[0].study.question}** (`{name}`)")
            lines += [
                f"  - {one.condition} ({escaped(words.about(one))}): {escaped(words.answer(one))}"
                for one in every
            ]
    return "\n".join(lines)


def verdicts(content: Content) -> str:
    """How many came out how, and folded away a line a claim."""

    def listed(found: list[Verdict]) -> str:
        rows = [(one.claim.statement, one.verdict) for one in found]
        return table(Table(cells(("claim", "verdict")), [cells(row) for row in rows]))

    every, apart = tested(content.verdicts), by_theorem(content.verdicts)
    inside = "\n\n".join([listed(every), f"{BY_THEOREM}:", listed(apart)])
    summary = f"All {len(every)} claims, and {len(apart)} theorems"
    return f"{tally(every)}\n\n{folded(summary, inside)}"


PARTS: dict[str, Callable[[Content], str]] = {
    "finding": partial(answers, experiment=HEADLINE),
    "qkv": partial(answers, experiment="qkv"),
    "orthogonalizer": partial(answers, experiment="orthogonalizer"),
    "others": others,
    "verdicts": verdicts,
    "cost": cost,
    "step": step,
}


def filled(readme: str, content: Content) -> str:
    """README.md, each part from `<!-- NAME: from results -->` to `<!-- end -->` made anew."""
    pattern = rf"(<!-- ({'|'.join(PARTS)}): from results[^>]*-->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{PARTS[m[2]](content)}\n{m[3]}", readme, flags=re.S)


# tables and lists --------------------------------------------------------------------------------


def made(records: Iterable[dict[str, Any]]) -> str:
    """Machines, versions and commits of records, in brackets."""
    return f"({escaped(words.environment(records))})"


def tested(found: list[Verdict]) -> list[Verdict]:
    """Those that measurements could refute."""
    return [one for one in found if not one.claim.theorem]


def by_theorem(found: list[Verdict]) -> list[Verdict]:
    """Those that only a false theorem could refute: they stand outside the tally."""
    return [one for one in found if one.claim.theorem]


def tally(found: list[Verdict]) -> str:
    """How many claims of each topic came out how."""
    topics = [t for t in TOPICS if any(one.claim.topic == t for one in found)]
    kinds = (CONFIRMED, REFUTED, DEPENDS, OPEN)
    counts = Counter((one.claim.topic, one.verdict) for one in found)
    rows = [[topic, *(str(counts[topic, kind]) for kind in kinds)] for topic in topics]
    rows.append(["all", *(str(sum(counts[t, kind] for t in topics)) for kind in kinds)])
    return table(Table(cells(("claims on", *kinds)), [cells(row) for row in rows]))


def claims_tables(found: list[Verdict]) -> list[str]:
    """One row a claim, with what was found where; those without records folded to one line."""
    judged, without = waiting.split(found)
    parts = [claims_table(tested(judged))]
    if said := waiting.line(without):
        rows = [(v.claim.statement, waiting.needs(v), v.claim.source) for v in without]
        heads = cells(("claim", "needs", "source"))
        parts.append(folded(said, table(Table(heads, [cells(row) for row in rows]))))
    return [*parts, f"### {BY_THEOREM}", claims_table(by_theorem(judged))]


def claims_table(found: list[Verdict]) -> str:
    heads = cells(("claim", "verdict", "where, with numbers", "source"))
    rows = [(v.claim.statement, f"**{v.verdict}**", v.condition, v.claim.source) for v in found]
    return table(Table(heads, [cells(row) for row in rows])) if rows else "None."


def not_run(content: Content) -> list[str]:
    if not content.not_run:
        return ["Every experiment has records."]
    return ["\n".join(f"- `{one.name}`: {one.question}" for one in content.not_run)]


def left_out(content: Content) -> list[str]:
    if not content.left_out:
        return ["No file was left out."]
    rows = [cells((content.results.place(file), reason)) for file, reason in content.left_out]
    return [table(Table(cells(("file", "reason")), rows))]

"""results/README.md, and the parts of README.md that are generated from records, in Markdown."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import quote

from bench.communication import tables as communication_tables
from bench.display.cells import Table
from bench.reporting import (
    answer,
    brief,
    findings,
    front,
    leaderboard,
    marked,
    own_markdown,
    trend,
)
from bench.reporting import communication as report_communication
from bench.reporting import tables as report_tables
from bench.reporting.content import COST, Content
from bench.reporting.marked import cells, escaped, folded, table
from bench.studies import words
from bench.studies.comparison import Comparison
from bench.verdicts import waiting
from bench.verdicts.claims import TOPICS
from bench.verdicts.judging import CONFIRMED, DEPENDS, OPEN, REFUTED, Verdict

FOREST = "forest"  # a picture
EXTRAPOLATED = "communication-extrapolated"  # a picture
KINDS = ("loss", "tuning")  # pictures of one condition


BY_THEOREM = "True by a theorem; checked numerically"
BEGINNING = "# Results\n\nMade by `make results`"  # a report recognises its own page by this


def results_page(content: Content, shown: Collection[str]) -> str:
    """The whole results/README.md; shown: the paths of its pictures."""
    parts = [
        BEGINNING + " from the records in this folder; nothing here is typed by hand. "
        "[`report.html`](report.html) is the same with interactive charts, "
        "[`records.csv`](records.csv) has one line a run, [`verdicts.json`](verdicts.json) the "
        "verdicts with their numbers and records.",
        *own_markdown.your_runs(content, shown),
        f"## The answer\n\n{opening(content, shown)}",
        *trends(content),
    ]
    for name, every in content.comparisons.items():
        parts += [f"## {name}", *experiment(content, every, shown)]
        parts += [table(report_tables.memory(every))] if name == COST else []
    for name, one in content.steps.items():
        parts += [f"## A step: {escaped(name)}", table(report_tables.steps(one)), made([one])]
        drawn = image(findings.overhead(one), quote(picture(name)))
        parts += [drawn] if picture(name) in shown else []
    parts += communication(content, shown)
    parts += [f"## Claims\n\n{tally(tested(content.verdicts))}", *claims_tables(content.verdicts)]
    parts += ["## Not run", *not_run(content), "## Left out", *left_out(content)]
    return "\n\n".join(parts) + "\n"


def trends(content: Content) -> list[str]:
    """The differences by horizon and batch, a table for each model."""
    found = [f"**{name}**\n\n{table(one)}" for name, one in trend.tables(content).items()]
    return ["### Trend over horizon and batch", *found, trend.NOTE] if found else []


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
        ranked = one.declared_as in study.cost_of
        parts += [table(leaderboard.ranks(one, content)), leaderboard.NOTE] if ranked else []
        chosen = report_tables.searched(one)
        parts += ["What the searches chose:", table(chosen)] if chosen else []
        parts.append("\n".join(f"- {escaped(note)}" for note in words.notes(one, content.controls)))
        drawn = {kind: picture(study.name, one.condition, kind) for kind in KINDS}
        alt = {"loss": findings.curve, "tuning": findings.tuning}
        parts += [image(alt[kind](one), at) for kind, at in drawn.items() if at in shown]
    records = [run.record for one in every for arm in one.arms for run in arm.runs]
    return [*parts, made(records)]


def communication(content: Content, shown: Collection[str]) -> list[str]:
    """The communication of many processes and, extrapolated, that of more processes."""
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
    """A picture, with its finding as text for those who cannot see it."""
    return f"![{escaped(finding)}]({place})"


def picture(*names: str) -> str:
    return f"pictures/{'-'.join(names).replace(' ', '-')}.svg"


# README.md -----------------------------------------------------------------------------------


def opening(content: Content, shown: Collection[str], below: str = "") -> str:
    """The answer, its table and its picture; below: the path to the results folder."""
    parts = [front.LEAD, brief.brief(content.comparisons)]
    parts.append(table(front.table(content)))
    parts.append(front.NOTE)
    every = answer.present(content.comparisons)
    if picture(FOREST) in shown:
        parts.append(image(findings.experiments(every), below + picture(FOREST)))
    return "\n\n".join(parts)


def filled(readme: str, content: Content, shown: Collection[str]) -> str:
    """README.md with its generated part made anew."""
    return marked.filled(readme, "answer", opening(content, shown, "results/"))


# tables and lists --------------------------------------------------------------------------------


def made(records: Iterable[dict[str, Any]]) -> str:
    """Machines, versions and commits of records, in brackets."""
    return f"({escaped(words.environment(records))})"


def tested(found: list[Verdict]) -> list[Verdict]:
    """The verdicts on claims that measurements could refute."""
    return [one for one in found if not one.claim.theorem]


def by_theorem(found: list[Verdict]) -> list[Verdict]:
    """The verdicts on claims that only a false theorem could refute; the tally omits them."""
    return [one for one in found if one.claim.theorem]


def tally(found: list[Verdict]) -> str:
    """The number of claims by topic and verdict."""
    topics = [t for t in TOPICS if any(one.claim.topic == t for one in found)]
    kinds = (CONFIRMED, REFUTED, DEPENDS, OPEN)
    counts = Counter((one.claim.topic, one.verdict) for one in found)
    rows = [[topic, *(str(counts[topic, kind]) for kind in kinds)] for topic in topics]
    rows.append(["all", *(str(sum(counts[t, kind] for t in topics)) for kind in kinds)])
    return table(Table(cells(("claims on", *kinds)), [cells(row) for row in rows]))


def claims_tables(found: list[Verdict]) -> list[str]:
    """One row per claim, with findings and conditions; claims without records share one line."""
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

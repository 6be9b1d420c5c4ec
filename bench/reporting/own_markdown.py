"""The part of results/README.md on the user's own runs."""

from collections.abc import Collection

from bench.reporting import own_next, own_runs
from bench.reporting.content import Content
from bench.reporting.marked import escaped, table
from bench.studies import groups


def your_runs(content: Content, shown: Collection[str]) -> list[str]:
    """The user's own runs: a table and curves of the comparable ones, and the next command."""
    if not content.own.runs:
        return []
    parts = ["## Your runs"]
    for number, bench in enumerate(content.own.benches, 1):
        parts += [f"### {escaped(groups.title(bench))}", f"{escaped(groups.about(bench))}."]
        parts += [table(own_runs.table(bench)), escaped(own_runs.lead(bench))]
        for against in own_runs.AGAINST:
            place = own_runs.picture(number, against)
            parts += [f"![{escaped(own_runs.finding(bench))}]({place})"] if place in shown else []
    if advice := own_next.advice(content.own):
        parts.append(f"Next ({escaped(advice[0])}):\n\n    {escaped(advice[1])}")
    return parts

"""results/report.html: all of a report's content as one file that opens offline.

Text from records reaches the page through Jinja's escaping alone, and a policy in the page lets
the browser run no script but the two written here, and fetch nothing.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.communication import tables as communication_tables
from bench.display.cells import Cell
from bench.reporting import charts as report_charts
from bench.reporting import communication as report_communication
from bench.reporting import cost_charts, own_charts, own_next, own_runs
from bench.reporting import tables as report_tables
from bench.reporting.content import Content
from bench.studies import groups, words
from bench.studies.comparison import Comparison
from bench.verdicts import judging, waiting
from bench.verdicts.finding import Finding
from bench.verdicts.judging import CONFIRMED, DEPENDS, OPEN, REFUTED, THEOREM, Verdict

HERE = Path(__file__).parent
SIGNS = {CONFIRMED: "✓", REFUTED: "✗", DEPENDS: "◐", OPEN: "?", THEOREM: "∎"}
BY_THEOREM = "true by a theorem; checked numerically"


def page(content: Content) -> str:
    """The whole HTML; the same content gives the same text."""
    template = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html")
    version = alt.SCHEMA_VERSION.removeprefix("v").rsplit(".", 1)[0]
    scripts = [
        # Its stub asks for a snippet, which is optional.
        vl_convert.javascript_bundle(vl_version=version),  # type: ignore[call-arg]
        (HERE / "page.js").read_text(encoding="utf-8"),
    ]
    runs = content.results.archive.runs
    judged, without = waiting.split(content.verdicts)
    return template.render(
        scripts=scripts,
        policy=policy(scripts),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        signs=SIGNS,
        counts={word: sum(v.verdict == word for v in content.verdicts) for word in SIGNS},
        own=your_runs(content),
        topics=topics(judged),
        waiting=waiting.line(without),
        without=[(one.claim, waiting.needs(one)) for one in without],
        records=len({run.file for run in runs}),
        made=words.environment(run.record for run in runs),
        experiments=[experiment(content, every) for every in content.comparisons.values()],
        steps=[step(name, one) for name, one in content.steps.items()],
        communication=communication(content) if content.shared else None,
        not_run=content.not_run,
        left_out=[(content.results.place(file), reason) for file, reason in content.left_out],
        loose=report_tables.loose([(content.results.place(r.file), r) for r in content.loose]),
    )


def your_runs(content: Content) -> dict[str, Any]:
    """One's own runs: those that compare together, and each with its command."""
    own = content.own
    return {
        "benches": [
            {
                "title": groups.title(bench),
                "about": groups.about(bench),
                "lead": own_runs.lead(bench),
                "table": own_runs.table(bench),
                "charts": [
                    spec(own_charts.loss(bench, against))
                    for against in own_runs.AGAINST
                    if number < own_runs.DRAWN
                ],
            }
            for number, bench in enumerate(own.benches)
        ],
        "advice": own_next.advice(own),
        "runs": report_tables.loose([(content.results.place(r.file), r) for r in own.runs]),
    }


def policy(scripts: list[str]) -> str:
    """A Content-Security-Policy: these scripts and no others, nothing from the network."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    )


def spec(chart: alt.LayerChart | None) -> dict[str, Any] | None:
    """Not validated, which would double the time of a page; the tests validate every kind."""
    return chart.to_dict(validate=False) if chart else None


def topics(verdicts: list[Verdict]) -> dict[str, list[dict[str, Any]]]:
    """The claims of each topic with what became of them; at the end those that are theorems."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(verdicts, key=lambda one: one.claim.theorem):
        first = next((f for f in one.findings if f.value is not None), None)
        found.setdefault(BY_THEOREM if one.claim.theorem else one.claim.topic, []).append(
            {
                "claim": one.claim,
                "verdict": one.verdict,
                "note": one.note,
                "number": Cell(number(first), first.unit) if first else Cell(""),
                "findings": [finding(f) for f in one.findings],
                "records": sorted({file for f in one.findings for file in f.records}),
            }
        )
    return found


def number(one: Finding) -> str:
    return judging.number_of(one).replace("-", "−")


def finding(one: Finding) -> dict[str, str]:
    """What a finding says of its claim: a word, where, the number, and what is to be known."""
    if one.missing:
        return {"word": "missing", "where": one.missing, "number": "", "why": ""}
    return {
        "word": judging.word(one),
        "where": one.condition,
        "number": "" if one.value is None else number(one),
        "why": "; ".join(text for text in (one.undecided, one.note) if text),
    }


def experiment(content: Content, every: list[Comparison]) -> dict[str, Any]:
    study = every[0].study
    runs = content.results.archive.of(study.name)
    there = {one.declared_as for one in every}
    return {
        "study": study,
        "answers": [(one.condition, words.answer(one)) for one in every],
        "chart": spec(report_charts.differences(every)),
        "conditions": [condition(content, one) for one in every],
        "absent": [name for name in study.conditions if name not in there],
        "made": words.environment(run.record for run in runs),
    }


def condition(content: Content, one: Comparison) -> dict[str, Any]:
    charts = [
        *(report_charts.loss(one, against) for against in ("steps", "units", "seconds")),
        *(report_charts.tuning(one), report_charts.accuracy(one)),
        *(cost_charts.share(one), cost_charts.memory(one)),
    ]
    by_arm = {arm: [run for run in one.runs if run.arm == arm] for arm in one.study.arms}
    return {
        "name": one.condition,
        "about": words.about(one),
        "table": report_tables.arms(one),
        "notes": words.notes(one),
        "missing": words.missing(one),
        "charts": [spec(chart) for chart in charts if chart],
        "searched": report_tables.searched(one),
        "routing": report_tables.routing(one),
        "sources": [
            {
                "arm": arm,
                "commands": words.commands(own),
                "records": sorted({content.results.place(run.file) for run in own}),
            }
            for arm, own in by_arm.items()
            if own
        ],
    }


def step(name: str, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "record": record,
        "chart": spec(cost_charts.overhead(record)),
        "table": report_tables.steps(record),
        "made": words.environment([record]),
    }


def communication(content: Content) -> dict[str, Any]:
    return {
        "lead": report_communication.LEAD,
        "measured": communication_tables.measured(content.shared),
        "made": words.environment(content.shared.values()),
        "commands": [one["command"] for one in content.shared.values()],
        "lead_extrapolated": report_communication.lead_extrapolated(),
        "chart": spec(cost_charts.extrapolated_chart(content.extrapolated)),
        "extrapolated": communication_tables.extrapolated(content.extrapolated),
    }

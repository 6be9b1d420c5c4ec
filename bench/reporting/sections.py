"""The page's sections as plain values; each is a function of a report's content."""

from typing import Any

import altair as alt

from bench.communication import tables as communication_tables
from bench.display.cells import Cell
from bench.reporting import (
    answer,
    batch_field,
    charts,
    cost_charts,
    difference_charts,
    findings,
    leaderboard,
    own_charts,
    own_next,
    own_runs,
    trend,
    tuning_charts,
)
from bench.reporting import communication as report_communication
from bench.reporting import tables as report_tables
from bench.reporting.content import COST, Content
from bench.studies import groups, words
from bench.studies.comparison import Comparison
from bench.verdicts import judging
from bench.verdicts.finding import Finding
from bench.verdicts.judging import Verdict

VARIANTS = {"qkv": "Q, K and V", "orthogonalizer": "Coefficients", "routing": "Routing"}
BY_THEOREM = "true by a theorem; checked numerically"


def spec(chart: alt.LayerChart | None) -> dict[str, Any] | None:
    """Not validated, which would double the page's build time; the tests validate every kind."""
    return chart.to_dict(validate=False) if chart else None


def your_runs(content: Content) -> dict[str, Any]:
    """The user's own runs: the comparable ones together, and each with its command."""
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


# losses ------------------------------------------------------------------------------------------


def opening(content: Content) -> dict[str, Any]:
    """The answer, and every difference from AdamW behind it."""
    every = answer.present(content.comparisons)
    forest = difference_charts.forest(every)
    return {
        "answer": answer.answer(content.comparisons),
        "forest": spec(forest),
        "trends": trend.tables(content),
        "trend_note": trend.NOTE,
    }


def parts(content: Content) -> dict[str, list[dict[str, Any]]]:
    """The experiments by their part: with AdamW, the three on Muon's variants, the rest."""
    main = {one.study.name for one in answer.of_optimizers(content.comparisons)} - {COST}
    drawn = {one.study.name for one in answer.present(content.comparisons)}  # in the forest
    found: dict[str, list[dict[str, Any]]] = {"main": [], "variants": [], "others": []}
    for name, every in content.comparisons.items():
        if name != COST:
            place = "main" if name in main else "variants" if name in VARIANTS else "others"
            found[place].append(experiment(every, content, forest=name in main & drawn))
    return found


def experiment(every: list[Comparison], content: Content, forest: bool = False) -> dict[str, Any]:
    """forest: the forest chart shows its differences."""
    study = every[0].study
    there = {one.declared_as for one in every}
    return {
        "study": study,
        "title": VARIANTS.get(study.name, study.name),
        "finding": "" if forest or len(study.final_seeds) < 2 else findings.differences(every),
        "answers": [(one.condition, words.answer(one)) for one in every],
        "chart": None if forest else spec(difference_charts.differences(every)),
        "conditions": [condition(one, content) for one in every],
        "absent": [name for name in study.conditions if name not in there],
    }


def condition(one: Comparison, content: Content) -> dict[str, Any]:
    if one.study.name == COST:
        drawn = [cost_charts.share(one), cost_charts.memory(one)]
    elif findings.of_variants(one):
        drawn = [charts.gap(one), charts.accuracy(one)]
    else:
        drawn = [charts.loss(one, "steps"), charts.loss(one, "seconds"), charts.accuracy(one)]
    return {
        "name": one.condition,
        "id": f"{one.study.name}-{one.condition.replace(' ', '-')}",
        "about": words.about(one),
        "arms": [arm.name for arm in findings.arms(one)],
        "table": report_tables.arms(one),
        "ranks": leaderboard.ranks(one, content) if one.declared_as in one.study.cost_of else None,
        "notes": words.notes(one, content.controls),
        "missing": words.missing(one),
        "charts": [spec(chart) for chart in drawn if chart],
        "routing": report_tables.routing(one),
    }


def tuning(content: Content) -> list[dict[str, Any]]:
    """The tuning, one entry per condition."""
    found = [
        {
            "name": f"{one.study.name}, {one.condition}",
            "id": f"tuning-{one.study.name}-{one.condition.replace(' ', '-')}",
            "chart": spec(tuning_charts.tuning(one)),
            "searched": report_tables.searched(one),
        }
        for every in content.comparisons.values()
        for one in every
    ]
    return [one for one in found if one["chart"] or one["searched"]]


# cost --------------------------------------------------------------------------------------------


def cost(content: Content) -> dict[str, Any]:
    """Memory and time of whole runs, and step benchmarks with an input field for the batch."""
    every = content.comparisons.get(COST, [])
    return {
        "experiment": experiment(every, content) if every else None,
        "memory": report_tables.memory(every),
        "steps": [step(name, one) for name, one in content.steps.items()],
    }


def step(name: str, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "record": record,
        "chart": spec(cost_charts.overhead(record)),
        "table": report_tables.steps(record),
        "field": batch_field.of(record),
    }


def communication(content: Content) -> dict[str, Any]:
    return {
        "lead": report_communication.LEAD,
        "measured": communication_tables.measured(content.shared),
        "lead_extrapolated": report_communication.lead_extrapolated(),
        "chart": spec(cost_charts.extrapolated_chart(content.extrapolated)),
        "extrapolated": communication_tables.extrapolated(content.extrapolated),
    }


# claims ------------------------------------------------------------------------------------------


def topics(verdicts: list[Verdict]) -> dict[str, list[dict[str, Any]]]:
    """The claims of each topic with their verdicts, theorems at the end."""
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
    """What a finding says of its claim: a word, the condition, the number, and notes."""
    if one.missing:
        return {"word": "missing", "where": one.missing, "number": "", "why": ""}
    return {
        "word": judging.word(one),
        "where": one.condition,
        "number": "" if one.value is None else number(one),
        "why": "; ".join(text for text in (one.undecided, one.note) if text),
    }


# provenance --------------------------------------------------------------------------------------


def provenance(content: Content) -> list[dict[str, Any]]:
    """For each experiment and benchmark: machines, versions, commits, commands, records."""
    found = []
    for name in content.comparisons:
        runs = content.results.archive.of(name)
        own = {
            f"{one.condition}, {arm}": [run for run in one.runs if run.arm == arm]
            for one in content.comparisons[name]
            for arm in one.study.arms
        }
        sources = [
            {
                "arm": label,
                "commands": words.commands(of),
                "records": sorted({content.results.place(run.file) for run in of}),
            }
            for label, of in own.items()
            if of
        ]
        made = words.environment(run.record for run in runs)
        found.append({"name": name, "made": made, "sources": sources})
    return found + [benchmark(name, one) for name, one in (content.steps | content.shared).items()]


def benchmark(name: str, record: dict[str, Any]) -> dict[str, Any]:
    source = {"arm": "all", "commands": [record["command"]], "records": [f"steps/{name}.json"]}
    return {"name": name, "made": words.environment([record]), "sources": [source]}

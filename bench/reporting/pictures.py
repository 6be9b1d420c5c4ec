"""The charts in the report's Markdown; everything there that needs altair."""

from collections.abc import Callable

import altair as alt

from bench.reporting import (
    answer,
    charts,
    cost_charts,
    difference_charts,
    markdown,
    own_charts,
    tuning_charts,
)
from bench.reporting.content import Content
from bench.studies.comparison import Comparison

DRAW: dict[str, Callable[[Comparison], alt.LayerChart | None]] = {
    "loss": charts.curve,
    "tuning": tuning_charts.tuning,
}


def every(content: Content) -> dict[str, alt.LayerChart]:
    """The charts in the Markdown, by their path in results/.

    Curves are left out if each arm has a single run: they would show only noise.
    """
    found: dict[str, alt.LayerChart | None] = dict(own_charts.every(content.own))
    compared = answer.present(content.comparisons)
    found[markdown.picture(markdown.FOREST)] = difference_charts.forest(compared)
    for name, every in content.comparisons.items():
        found[markdown.picture(name)] = difference_charts.differences(every)
        for one in every if len(every[0].study.final_seeds) > 1 else []:
            for kind, draw in DRAW.items():
                found[markdown.picture(name, one.condition, kind)] = draw(one)
    for name, record in content.steps.items():
        found[markdown.picture(name)] = cost_charts.overhead(record)
    if content.shared:
        found[markdown.picture(markdown.EXTRAPOLATED)] = cost_charts.extrapolated_chart(
            content.extrapolated
        )
    return {place: chart for place, chart in found.items() if chart}

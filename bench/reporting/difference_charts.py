"""The charts of differences: paired by seed, with intervals and the margin."""

from collections.abc import Iterator
from typing import Any

import altair as alt

from bench.display.palette import GREY, TEXT
from bench.reporting import findings
from bench.reporting.charts import ROW, WIDE, looks
from bench.reporting.style import Style, chart, data, interval, rounded, tips, told_apart
from bench.studies import curves, stats, words
from bench.studies.comparison import Comparison
from bench.studies.stats import Estimate

BORROWED = " *"  # behind the name of an arm that was not tuned for itself
HEAD = "#"  # the key of a heading's row begins with it; a key is group, |, name


def differences(comparisons: list[Comparison]) -> alt.LayerChart | None:
    """Paired differences from the baseline with 95 % intervals; the margin is a grey band.

    One row per arm, under all conditions. A/A arms are grey, because their difference from the
    repeated arm is noise. None if no pair has two seeds: a number without an interval shows
    nothing.
    """
    several, study = len(comparisons) > 1, comparisons[0].study
    groups = {one.condition if several else "": list(_differences(one)) for one in comparisons}
    margins: dict[str, float | None] = dict.fromkeys(groups, study.margin)
    return drawn(
        *(groups, margins, looks(comparisons[0], _named(groups)), study.baseline),
        findings.differences(comparisons),
    )


def forest(comparisons: list[Comparison]) -> alt.LayerChart | None:
    """The differences of all experiments with one baseline, one group each; None without any."""
    groups, margins = {}, {}
    for one in comparisons:
        name = f"{one.study.name}, {one.condition}"
        found = [row for row in _differences(one) if row[2].n > 1]
        if found:
            groups[name], margins[name] = found, one.study.margin
    if not groups:
        return None
    style: dict[str, Style] = {}
    for one in comparisons:
        style |= looks(one, _named(groups))
    finding = findings.experiments(comparisons)
    return drawn(groups, margins, style, comparisons[0].study.baseline, finding)


Groups = dict[str, list[tuple[str, str, Estimate]]]


def drawn(
    groups: Groups,
    margins: dict[str, float | None],
    style: dict[str, Style],
    baseline: str,
    finding: str,
) -> alt.LayerChart | None:
    """One row per arm below its group's row; a group named "" is hidden; None without intervals."""
    rows: list[dict[str, Any]] = []
    for group, found in groups.items():
        rows += [{"row": f"{HEAD}|{group}"}] if group else []
        margin = margins[group]
        rows += [
            {"arm": arm, "name": name, "group": group, "row": f"{group}|{name}"}
            | interval(estimate)
            | ({"left": -margin, "right": margin} if margin else {})
            for arm, name, estimate in found
        ]
    if not any("low" in row for row in rows):
        return None
    keys = ("mean", "low", "high", "left", "right")
    ends = [0, *(row[key] for row in rows for key in keys if key in row)]
    pad = 0.04 * (max(ends) - min(ends)) or 0.01
    scale = alt.Scale(domain=[rounded(min(ends) - pad), rounded(max(ends) + pad)], nice=False)
    axis = alt.Axis(labelOverlap=True, tickCount=6)
    x = alt.X("mean:Q", title=f"test loss minus {baseline}'s, nats", scale=scale, axis=axis)
    notes = "left of zero is better; line: 95 % interval, paired by seed"
    known = sorted({margin for margin in margins.values() if margin})
    if known:
        notes += f"; grey: counts as equal ({', '.join(f'±{margin:g}' for margin in known)})"
    if any(name.endswith(BORROWED) for found in groups.values() for _, name, _ in found):
        notes += f"; {BORROWED.strip()}: settings borrowed from another experiment"
    title = f"Test loss against {baseline}"
    return chart(_layers(rows, x, style), title, notes, len(rows) * ROW, finding)


def _layers(rows: list[dict[str, Any]], x: alt.X, style: dict[str, Style]) -> list[alt.Chart]:
    """Each row's margin, the zero line, intervals and means."""
    encoded = told_apart(style, by=("color", "shape"), legend=False)
    names = [row["row"].partition("|")[2] for row in rows]
    headed: Any = {"condition": {"test": f"datum.value[0] == '{HEAD}'", "value": "bold"}}
    axis = alt.Axis(
        labelExpr="slice(datum.label, indexof(datum.label, '|') + 1)",
        labelFontWeight=headed | {"value": "normal"},
        labelLimit=260,
        # A viewer's font may be wider than the one used for the layout of a static picture.
        minExtent=min(200, WIDE * max(map(len, names))),
    )
    y = alt.Y("row:N", title=None, sort=None, axis=axis)
    base = alt.Chart(data(rows)).encode(y)
    there = base.transform_filter("isValid(datum.mean)").encode(color=encoded["color"])
    bounded = base.transform_filter("isValid(datum.left)")
    points = there.mark_point(filled=True, size=75, opacity=1)
    lines = there.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2.5)
    tooltip = tips(("group:N", "under"))
    return [
        base.mark_point(opacity=0),  # all rows in order, including headings
        bounded.mark_rect(color=GREY, opacity=0.22).encode(alt.X("left:Q"), alt.X2("right")),
        alt.Chart(data([{"at": 0}])).mark_rule(color=TEXT).encode(alt.X("at:Q")),
        lines.encode(alt.X("low:Q"), alt.X2("high:Q")),
        points.encode(x, encoded["shape"], tooltip=tooltip),
    ]


def _named(groups: Groups) -> list[dict[str, Any]]:
    return [{"arm": arm} for found in groups.values() for arm, _, _ in found]


def _differences(one: Comparison) -> Iterator[tuple[str, str, Estimate]]:
    """Arm, its row's name, and the difference."""
    for arm in one.arms:
        if arm.difference:
            mark = BORROWED * bool(words.borrowed(one, arm.name))
            yield arm.name, arm.name + mark, arm.difference.estimate
    for again, source in one.study.again().items():
        pair = [found for name in (again, source) if (found := one.arm(name))]
        losses = [curves.by_seed(arm.runs, "test_loss") for arm in pair]
        if len(losses) == 2 and len(values := stats.paired(*losses)):
            yield again, f"{source} again (A/A)", stats.mean_interval(values)

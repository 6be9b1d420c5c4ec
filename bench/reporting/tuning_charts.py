"""The charts of tuning: the results of searches, and the loss at each rate of a grid."""

import math
from typing import Any

import altair as alt

from bench.display.palette import WARNING
from bench.reporting import findings
from bench.reporting.charts import HEIGHT, NATS, around, banded, looks
from bench.reporting.findings import arms
from bench.reporting.style import BRIGHT, CHOSEN, chart, data, interval, rounded, tips, told_apart
from bench.studies import stats
from bench.studies.comparison import Comparison
from bench.studies.words import unit_of


def tuning(one: Comparison) -> alt.LayerChart | None:
    """The result of tuning: by the number of trials in a search, or by the rate of a grid."""
    return over_trials(one) if one.study.search is not None else over_rates(one)


def over_trials(one: Comparison) -> alt.LayerChart | None:
    """The lowest validation loss found by this many trials, averaged over studies, with a band."""
    rows: list[dict[str, Any]] = [
        {"arm": arm.name, "trials": trials, **interval(stats.mean_interval(best))}
        for arm in arms(one)
        if arm.searched is not None and arm.name in one.study.tuned()
        for trials in range(1, arm.searched.trials + 1)
        if all(map(math.isfinite, best := arm.searched.best_of(trials)))
    ]
    if not rows:
        return None
    least, most = around(rows)
    encoded = told_apart(looks(one, rows))
    label, scale = f"validation loss, {NATS[unit_of(one)]}", alt.Scale(domain=[least, most])
    ticks = alt.Axis(values=sorted({row["trials"] for row in rows}), format="d")
    x = alt.X("trials:Q", title="trials", axis=ticks, scale=alt.Scale(nice=False, padding=12))
    y = alt.Y("mean:Q", title=label, scale=scale)
    layers = banded(rows, (least, most), x, y, encoded, tips(("trials:Q", "trials")))
    notes = f"{one.condition}: best of so many trials, mean of {len(one.study.tune_seeds)} searches"
    notes += "; band: 95 % interval"
    title = f"Tuning of {one.study.name}"
    return chart(layers, title, notes, HEIGHT, findings.tuning(one))


def over_rates(one: Comparison) -> alt.LayerChart | None:
    """Validation loss at each rate of the grid; the best is ringed, and labelled if at the edge."""
    own = one.study.tuned()
    tuned = [(arm, arm.tuned) for arm in arms(one) if arm.tuned and arm.name in own]
    trials: list[dict[str, Any]] = [
        {"arm": arm.name, "rate": rate, "loss": value}
        for arm, best in tuned
        for rate, value in best.losses.items()
    ]
    rows = [row | {"loss": rounded(row["loss"])} for row in trials if math.isfinite(row["loss"])]
    if not rows:
        return None
    top = max(row["loss"] for row in rows)
    diverged = [row | {"loss": top} for row in trials if not math.isfinite(row["loss"])]
    rings = [
        row | {"note": "edge of the grid" if arm.at_edge else ""}
        for arm, best in tuned
        for row in rows
        if (row["arm"], row["rate"]) == (arm.name, best.rate)
    ]
    x = alt.X(
        "rate:Q",
        title="optimizer.lr_scale, multiples of the base rate",
        scale=alt.Scale(type="log", base=2, padding=42),  # room for "edge of the grid"
        axis=alt.Axis(
            values=sorted({row["rate"] for row in trials}), format="~g", labelOverlap=True
        ),
    )
    title = f"validation loss, {NATS[unit_of(one)]}"
    y = alt.Y("loss:Q", title=title, scale=alt.Scale(zero=False, nice=False, padding=14))
    encoded = told_apart(looks(one, trials))
    only_color = {"color": encoded["color"]}
    tooltip = [alt.Tooltip("arm:N"), alt.Tooltip("rate:Q"), alt.Tooltip("loss:Q", format=".4~g")]
    curves = alt.Chart(data(rows)).encode(x, y, tooltip=tooltip, **encoded)
    ringed = alt.Chart(data(rings)).encode(x, y)
    layers = [
        curves.mark_line().encode(BRIGHT),
        curves.mark_point(filled=True, size=40).encode(BRIGHT).add_params(CHOSEN),
        ringed.mark_point(size=190, strokeWidth=2, shape="circle").encode(**only_color),
        ringed.mark_text(dy=-16, fontWeight="bold", color=WARNING).encode(text="note:N"),
    ]
    notes = f"{one.condition}: validation loss at each rate; ring: the best"
    if diverged:
        lost = alt.Chart(data(diverged)).encode(x, y, tooltip=tooltip[:2], **only_color)
        layers.append(lost.mark_text(text="×", size=20))
        notes += "; ×: diverged, drawn at the top"
    title = f"Tuning of {one.study.name}"
    return chart(layers, title, notes, HEIGHT, findings.tuning(one))

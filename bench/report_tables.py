"""The tables of results/README.md and README.md, in Markdown: the same records, the same text."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench import stats
from bench.claims import CONFIRMED, DEPENDS, OPEN, REFUTED, TOPICS, Verdict
from bench.comparison import Arm, Comparison
from bench.report_content import Content
from bench.stats import Estimate

MB = 1e6


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(text: str) -> str:
    """Text of records must not end a cell, a line or a table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def interval(one: Estimate | None, form: str = ".3f") -> str:
    """A mean and its interval; without one where a single run gives none."""
    if one is None or one.n == 0:
        return "–"
    if one.n == 1:
        return f"{one.mean:{form}} (n=1)"
    return f"{one.mean:{form}} ({one.low:{form}} to {one.high:{form}}, n={one.n})"


def verdicts(found: list[Verdict]) -> str:
    """One row a claim."""
    return table(
        ["claim", "verdict", "where, with numbers", "source"],
        (
            [one.claim.statement, f"**{one.verdict}**", one.condition, one.claim.source]
            for one in found
        ),
    )


def tally(found: list[Verdict]) -> str:
    """How many claims of each topic came out how."""
    topics = [t for t in TOPICS if any(one.claim.topic == t for one in found)]
    kinds = (CONFIRMED, REFUTED, DEPENDS, OPEN)
    counts = Counter((one.claim.topic, one.verdict) for one in found)
    rows = [[topic, *(str(counts[topic, kind]) for kind in kinds)] for topic in topics]
    total = ["all", *(str(sum(counts[t, kind] for t in topics)) for kind in kinds)]
    return table(["claims on", *kinds], [*rows, total])


def losses(one: Comparison) -> str:
    """What each arm reached, at the rate it was given."""
    images = any(arm.test_accuracy for arm in one.arms)
    head = ["arm", "rate", "test loss (95 %)", f"− `{one.study.baseline}`, paired", "which is"]
    head += ["steps to target"] if one.target is not None else []
    head += ["accuracy"] if images else []
    rows = []
    for arm in one.arms:
        row = [f"`{arm.name}`", rate(arm), interval(arm.test_loss), *difference(one, arm)]
        row += [target(arm)] if one.target is not None else []
        row += [interval(arm.test_accuracy, ".1%")] if images else []
        rows.append(row)
    return table(head, rows)


def costs(one: Comparison) -> str:
    """What each arm cost and kept."""
    rows = []
    for arm in one.arms:
        if arm.noise:
            continue
        over = arm.median("overhead", "value")
        rows.append(
            [
                f"`{arm.name}`",
                number(arm.median("optimizer_share"), ".1%"),
                "reference" if arm.name == "adamw" else number(over, "+.1%"),
                f"{batch(arm.runs[0].record)} a step",
                megabytes(arm.median("optimizer_state_bytes", "total")),
                megabytes(arm.median("peak_memory_bytes")),
            ]
        )
    head = ["arm", "optimizer share", "overhead over AdamW", "at", "state", "peak memory"]
    return table(head, rows)


def rate(arm: Arm) -> str:
    edge = ", at the edge of the grid" if arm.at_edge else ""
    lost = f"; {arm.diverged} of {len(arm.runs)} diverged" if arm.diverged else ""
    return f"×{arm.rate:g}{edge}{lost}"


def difference(one: Comparison, arm: Arm) -> tuple[str, str]:
    """The difference to the baseline and what it means."""
    if arm.name == one.study.baseline:
        return "–", "the baseline"
    if arm.noise:
        floor = number(one.noise_floor)
        return "–", f"the same again; two runs differ by up to {floor}"
    if arm.difference is None:
        return "–", "–"
    found = arm.difference
    p = f" (p={found.p:.2g}, {found.test})" if found.p == found.p else ""
    return interval(found.estimate, "+.3f"), found.verdict() + p


def target(arm: Arm) -> str:
    """Steps to the target; a run that does not reach it counts as slower than all that do."""
    reached = [steps for steps in arm.steps_to_target if steps is not None]
    middle = stats.censored_median(arm.steps_to_target)
    shown = "not reached" if middle is None else f"{middle:,.0f}"
    return f"{shown} ({len(reached)} of {len(arm.steps_to_target)} reach it)"


def batch(one: dict[str, Any]) -> str:
    unit = "tokens" if "tokens_per_step" in one else "images"
    return f"{one[f'{unit}_per_step']:,} {unit}"


def megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value / MB:,.1f} MB"


def machine(records: list[dict[str, Any]]) -> str:
    """Where and by which code, so that a reader can compare with theirs."""
    found = sorted(
        {
            f"{e['cpu'] if e['gpu'] is None else e['gpu']}, {e['threads']} threads, "
            f"torch {e['torch']}"
            for e in (r["environment"] for r in records)
        }
    )
    precisions = sorted({r["precision"] for r in records})
    commits = sorted({(r["environment"]["commit"] or "unknown")[:10] for r in records})
    return f"{'; '.join(found)}, {' and '.join(precisions)}; commit {', '.join(commits)}"


def scale(one: Comparison) -> str:
    """The size of the runs, in words."""
    r = one.arms[0].runs[0].record
    return f"`{r['model']}` ({r['parameters'] / 1e6:.1f} M), {r['steps']:,} steps of {batch(r)}"


def answer(one: Comparison) -> str:
    """Every arm against the baseline, in a sentence."""
    found = [
        f"`{arm.name}` {interval(arm.difference.estimate, '+.3f')}: {arm.difference.verdict()}"
        for arm in one.arms
        if arm.difference is not None
    ]
    if not found:
        return f"{one.condition}: no pair of finished runs to compare."
    return f"{one.condition}, test loss − `{one.study.baseline}`: {'; '.join(found)}."


def memory(content: Content) -> str:
    """What the arms of experiment=cost save of AdamW's memory, by denominator."""
    rows = []
    for one in content.comparisons.get("cost", []):
        base = one.arm(one.study.baseline)
        if base is None:
            continue
        for arm in one.arms:
            parameters = arm.median("parameters")
            own, theirs = (a.median("optimizer_state_bytes", "total") for a in (arm, base))
            over = arm.median("overhead", "value")
            peaks = [a.median("peak_memory_bytes") for a in (arm, base)]
            rows.append(
                [
                    f"`{one.condition}`",
                    f"`{arm.name}`",
                    number(arm.median("optimizer_share"), ".1%"),
                    "reference" if arm is base else number(over, "+.0%"),
                    batch(arm.runs[0].record),
                    megabytes(own),
                    *(
                        number(1 - (own + aside) / (theirs + aside), ".1%")
                        for aside in (0, 4 * parameters, 8 * parameters)
                    ),
                    number(1 - peaks[0] / peaks[1], ".1%") if None not in peaks else "–",
                ]
            )
    head = ["model", "optimizer", "optimizer share", "overhead", "batch", "state", "state saved"]
    head += ["of weights + state", "of weights + gradients + state", "of the measured peak"]
    return table(head, rows)


def step(one: dict[str, Any]) -> str:
    """A step benchmark: each optimizer's time, and where its overhead falls to 1 %."""
    arms = {label: found for label, found in one["optimizers"].items() if not found["error"]}
    control = arms.get("torch_muon")
    rows = []
    for label, found in arms.items():
        ms, at = found["step_ms"], found["units_at"]["0.01"]
        last = [point for point in found["overhead"] if point["measured"]][-1]
        aside = label == one["reference"]
        hidden = found["step_ms_by_role"].get("hidden", {}).get("median")
        against = control and hidden and not aside
        ratio = control["step_ms_by_role"]["hidden"]["median"] / hidden if against else None
        far = "–"
        if not aside and at["units"] is not None:
            far = f"{at['units']:,.0f} ({at['low']:,.0f}–{at['high']:,.0f})"
        rows.append(
            [
                f"`{label}`",
                f"{ms['median']:,.0f} ({ms['p10']:,.0f}–{ms['p90']:,.0f})",
                "–" if ratio is None else f"{ratio:.2f}×",
                "reference" if aside else f"{last['value']:+.0%}",
                far,
                number(found["gemm_share"], ".0%"),
                megabytes(found["peak_temporary_bytes"]),
            ]
        )
    unit, units = one["unit"], last["units"]
    head = ["optimizer", "ms of a step (p10–p90)", "hidden matrices against `torch_muon`"]
    head += [f"overhead at {units:,} {unit}", f"1 % from ({unit}, 95 %)"]
    head += ["of the GEMM peak", "temporary memory"]
    noise = one["noise"]["difference_ms"]["ms"]
    return (
        f"{table(head, rows)}\n\nn={ms['n']} by turns; AdamW against itself differs by up to "
        f"{noise:.0f} ms. The batches of 1 % are extrapolated. ({machine([one])})"
    )

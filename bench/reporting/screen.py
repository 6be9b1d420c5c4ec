"""A report's output on the terminal: the user's own runs, and two groups compared."""

from rich.table import Table

from bench.display.numbers import duration
from bench.display.terminal import add, plain_table
from bench.reporting.own_runs import OwnRuns
from bench.studies import groups, pairs, versus, words
from bench.studies.versus import Loss, Reached, Versus

MOST = 20  # rows of own runs; the report has all of them


# the user's own runs ------------------------------------------------------------------------------


def own(found: OwnRuns) -> list[Table]:
    """One table per bench with one row per group, up to MOST rows."""
    tables: list[Table] = []
    rows = 0
    for bench in found.benches:
        if rows and rows + len(bench.groups) > MOST:
            break
        tables.append(groups.table(bench))
        rows += len(bench.groups)
    return tables


def left(found: OwnRuns, shown: int) -> str | None:
    """The line that says how many benches only the report shows."""
    more = len(found.benches) - shown
    return f"{more} more settings of yours are in the report" if more else None


# two groups ---------------------------------------------------------------------------------------


def losses(found: Versus) -> Table:
    table = plain_table("", "A", "B", "B − A, 95 % interval", "p")
    for one in found.losses:
        mean, interval = words.span(one.difference, "+")
        whole = f"{mean} ({interval})" if one.difference.n > 1 else mean
        p = "–" if one.p != one.p else f"{one.p:.2g}"
        add(table, one.name, f"{one.ours:.4f}", f"{one.theirs:.4f}", whole, p)
    return table


def group(letter: str, name: str, runs: list) -> str:
    """A  gpt2_nano-adamw: 3 runs, seeds 0 1 2"""
    seeds = " ".join(map(str, sorted({run.record["seed"] for run in runs})))
    lost = sum(run.record["status"] != "finished" for run in runs)
    several = f"{len(runs)} runs" if len(runs) > 1 else runs[0].record["cell"]
    return f"{letter}  {name}: {several}, seed {seeds}" + f", {lost} diverged" * (lost > 0)


def notes(found: Versus) -> list[str]:
    """How the differences were computed, what they rest on, and steps and seconds to equal loss."""
    said = [how(one) for one in found.losses[-1:]] or ["No finished run on both sides."]
    said += crowded("A", found.ours) + crowded("B", found.theirs)
    if len({pairs.same(run.record["data"]) for run in (*found.ours, *found.theirs)}) > 1:
        said.append("A and B were trained on other data: their losses are not comparable.")
    for which, other, reached in (("B", "A", found.b_to_a), ("A", "B", found.a_to_b)):
        said += [to_equal(which, other, reached)] if reached else []
    clocks = (found.b_to_a and found.b_to_a.seconds, found.a_to_b and found.a_to_b.seconds)
    if any(clocks) and not versus.same_clock(found.ours, found.theirs):
        said.append("Made on different machines or threads: their seconds do not compare.")
    return said


def how(one: Loss) -> str:
    """Whether seeds pair, and why there is no interval."""
    n = one.difference.n
    if one.paired:
        return f"Paired by seed, n={n}" + (
            f" ({one.test})." if n > 1 else ": one pair has no interval and no test."
        )
    why = "Not paired: no seed in common under the same model, data, steps, batch and precision"
    return f"{why}; " + (
        f"by {one.test}, n≥{n}." if n > 1 else "n=1 on a side, so no interval and no test."
    )


def crowded(letter: str, runs: list) -> list[str]:
    """The note that several runs of a group share a seed, and how they differ."""
    benches = pairs.benches(runs)
    several = [one for one in benches if len(one.groups) > 1]
    names = [one.name for bench in several for one in bench.groups]
    if len(benches) > 1:
        return [f"{letter} mixes {len(benches)} settings of model, data, steps or batch."]
    return [f"{letter} mixes {', '.join(names)}; of each seed their mean counts."] if names else []


def to_equal(which: str, other: str, one: Reached) -> str:
    """B reaches A's final validation loss (4.934) at step 400 of 600 (67 %), in 20 s of 31 s."""
    steps, seconds = one.of
    head = f"{which} reaches {other}'s final validation loss ({one.target:.4f})"
    never = f"; {one.never} of {one.runs} runs never do" if one.never else ""
    if one.step is None:
        return f"{head} never{never if one.never < one.runs else ''}."
    share = f" ({one.step / steps:.0%})" if steps else ""
    said = f"{head} at step {one.step:,.0f} of {other}'s {steps:,.0f}{share}"
    if one.seconds is not None and seconds:
        said += f", in {duration(one.seconds)} of {duration(seconds)}"
    return f"{said}{never}."


def settings(found: Versus) -> Table | None:
    if not found.differing:
        return None
    table = plain_table("settings that differ", "A", "B", words=(0, 1, 2))
    for row in found.differing:
        add(table, *row)
    return table

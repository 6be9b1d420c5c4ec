"""The tables of a study, for the terminal."""

from rich.table import Table
from rich.text import Text

from bench.display.numbers import duration, number
from bench.display.terminal import add, plain_table
from bench.studies import groups, words
from bench.studies.comparison import Comparison
from bench.studies.forecast import Forecast
from bench.studies.study import Best


def plan(clock: Forecast) -> Table:
    """The remaining runs: one row per arm."""
    table = plain_table("condition", "arm", "runs", "each", "together", words=(0, 1, 2))
    for (condition, arm), cost in clock.costs.items():
        left = {k[0]: n for k, n in clock.left.items() if k[1:] == (condition, arm)}
        runs = " + ".join(f"{n} {stage}" for stage, n in left.items())
        both = (cost.seconds, sum(left.values()) * cost.seconds)
        add(table, condition, arm, runs, *map(duration, both))
    return table


def tuning(best: dict[tuple[str, str], Best]) -> Table:
    """The validation loss of each arm at each rate; the best one is highlighted."""
    rates = sorted({rate for one in best.values() for rate in one.losses})
    table = plain_table("condition", "arm", *(f"{rate:g}" for rate in rates), words=(0, 1))
    table.title = Text("validation loss by optimizer.lr_scale; best: *, at the edge of the grid: !")
    for (condition, arm), one in best.items():
        shown = {rate: number(loss, ".3f") for rate, loss in one.losses.items()}
        shown[one.rate] += "!" if one.at_edge else "*"
        add(table, condition, arm, *(shown.get(rate, "–") for rate in rates))
    return table


def arms(found: Comparison) -> Table:
    """The results of each arm over the final seeds, its difference from the baseline, its costs."""
    baseline = found.study.baseline
    table = plain_table("", "test loss", f"to {baseline}", "n", "share", "state", "peak")
    for arm in found.arms:
        against = "–" if arm.difference is None else groups.plus_minus(arm.difference.estimate)
        add(
            table,
            arm.name,
            words.span(arm.test_loss)[0],
            "baseline" if arm.name == baseline else against,
            f"{arm.test_loss.n}",
            words.percent(arm.median("optimizer_share"), places=0),
            groups.size(arm.median("optimizer_state_bytes", "total")),
            groups.size(arm.median("peak_memory_bytes")),
        )
    return table

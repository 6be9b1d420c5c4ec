"""The tables of a study, for the terminal."""

from rich.table import Table

from bench.display.numbers import number
from bench.studies.study import Best


def tuning(best: dict[tuple[str, str], Best]) -> Table:
    """The validation loss of each arm at each rate; the best one stands out."""
    rates = sorted({rate for one in best.values() for rate in one.losses})
    table = Table(title="validation loss by optimizer.lr_scale", title_justify="left")
    for heading in ("condition", "arm", *(f"{rate:g}" for rate in rates), ""):
        table.add_column(heading)
    for (condition, arm), one in best.items():
        shown = {rate: number(loss) for rate, loss in one.losses.items()}
        shown[one.rate] = f"[bold]{shown[one.rate]}[/bold]"
        edge = "[red]best rate at the edge of the grid[/red]" if one.at_edge else ""
        table.add_row(condition, arm, *(shown.get(rate, "–") for rate in rates), edge)
    return table

"""Output for the user's terminal: as wide as the terminal, with a usual width elsewhere."""

import os
import textwrap
from collections.abc import Collection, Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.processes import world

WIDTH = 80
LEAST = 10  # columns of a table's first column, which wraps if all others stay whole


def console() -> Console:
    """A console for stdout; silent in all processes of a run but the leading one."""
    given = Console().is_terminal or "COLUMNS" in os.environ
    return Console(width=None if given else WIDTH, highlight=False, quiet=world.rank() > 0)


def width() -> int:
    return console().width


def show(*things: Table | str) -> None:
    """Print tables, and text wrapped at whole words; brackets in it are text.

    A table with lines that is wider than the terminal is printed row by row.
    """
    out = console()
    for thing in things:
        if isinstance(thing, str):
            write(wrapped(thing, out.width))
            continue
        if thing.title:  # rich would wrap it at the table's width
            write(wrapped(str(thing.title), out.width))
            thing.title = None
        if thing.box is not None and natural(out, thing) > out.width:
            write(row_by_row(thing, out.width))
        else:
            out.print(thing)


def natural(out: Console, table: Table) -> int:
    """A table's width when there is enough room."""
    return out.measure(table, options=out.options.update_width(10_000)).maximum


def write(lines: Iterable[str]) -> None:
    """Print lines unchanged."""
    console().print(Text("\n".join(lines)), soft_wrap=True)


def row_by_row(table: Table, width: int) -> Iterator[str]:
    """For each row the first cell, then the other cells below it with their headings."""
    heads = [" ".join(str(column.header).split()) for column in table.columns]
    for first, *others in zip(*(column.cells for column in table.columns), strict=True):
        yield from wrapped(f"{first}", width)
        named = (f"{head}: {cell}" for head, cell in zip(heads[1:], others, strict=True))
        yield from wrapped("    " + "; ".join(named), width, "    ")


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of whole words, all but the first indented; only a single word may be wider."""
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def plain_table(*heads: str, words: Collection[int] = (0,)) -> Table:
    """Without lines; columns of words wrap and numbers stay whole, to fit a narrow terminal.

    words: the columns that hold text.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(
            Text(head),
            justify="left" if number in words else "right",
            overflow="fold",
            no_wrap=number not in words,
            min_width=None if number else LEAST,
        )
    return table


def add(table: Table, *texts: str, style: str | None = None) -> None:
    """Add a row; brackets in it are text."""
    table.add_row(*map(Text, texts), style=style)

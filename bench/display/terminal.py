"""What is printed for the person at the terminal: as wide as that is, elsewhere as most are."""

import os
import textwrap
from collections.abc import Collection, Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.processes import world

WIDTH = 80
LEAST = 10  # columns of a table's first one, which folds where all others stay whole


def console() -> Console:
    """Of stdout; silent in all processes of a run but the leading one."""
    given = Console().is_terminal or "COLUMNS" in os.environ
    return Console(width=None if given else WIDTH, highlight=False, quiet=world.rank() > 0)


def width() -> int:
    return console().width


def show(*things: Table | str) -> None:
    """Tables, and text in whole words; brackets in it are text.

    A table with lines that is wider than the terminal is written row by row.
    """
    out = console()
    for thing in things:
        if isinstance(thing, str):
            write(wrapped(thing, out.width))
            continue
        if thing.title:  # rich would wrap it at the width of the table
            write(wrapped(str(thing.title), out.width))
            thing.title = None
        if thing.box is not None and natural(out, thing) > out.width:
            write(row_by_row(thing, out.width))
        else:
            out.print(thing)


def natural(out: Console, table: Table) -> int:
    """How wide a table is where there is room."""
    return out.measure(table, options=out.options.update_width(10_000)).maximum


def write(lines: Iterable[str]) -> None:
    """Lines as they are."""
    console().print(Text("\n".join(lines)), soft_wrap=True)


def row_by_row(table: Table, width: int) -> Iterator[str]:
    """Of each row the first cell, with the others below it by their headings."""
    heads = [" ".join(str(column.header).split()) for column in table.columns]
    for first, *others in zip(*(column.cells for column in table.columns), strict=True):
        yield from wrapped(f"{first}", width)
        named = (f"{head}: {cell}" for head, cell in zip(heads[1:], others, strict=True))
        yield from wrapped("    " + "; ".join(named), width, "    ")


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of whole words, those after the first indented; only a word alone is wider."""
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def plain_table(*heads: str, words: Collection[int] = (0,)) -> Table:
    """Without lines; columns of words fold where numbers stay whole: all fit a narrow terminal.

    words: the columns that are not numbers.
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
    """A row; brackets in it are text."""
    table.add_row(*map(Text, texts), style=style)

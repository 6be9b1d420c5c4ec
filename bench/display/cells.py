"""A table as cells, which page, Markdown and terminal each write in their own way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """text with a smaller line below; tone: the class for its colour."""

    text: str
    small: str = ""
    tone: str = ""


NONE = Cell("–")


@dataclass(frozen=True)
class Table:
    heads: list[Cell]
    rows: list[list[Cell]]

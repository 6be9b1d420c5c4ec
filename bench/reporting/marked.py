"""Cells, tables and text in Markdown."""

import re
from collections.abc import Iterable

from bench.display.cells import Cell, Table


def table(one: Table) -> str:
    rows = [["---"] * len(one.heads), *([text(cell) for cell in row] for row in one.rows)]
    lines = [[text(head) for head in one.heads], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text(cell: Cell) -> str:
    """A cell with its smaller line in brackets; text from records cannot end the cell or line."""
    whole = f"{cell.text} ({cell.small})" if cell.small else cell.text
    return escaped(whole).replace("|", "\\|")


def escaped(words: str) -> str:
    """Text, including that from records, as one line of plain Markdown: no tag, link or picture."""
    line = "".join(sign if sign.isprintable() else " " for sign in words)
    return line.replace("<", "&lt;").replace("](", "]\\(")


def filled(page: str, name: str, whole: str) -> str:
    """A page with the part after `<!-- NAME: from results -->` replaced."""
    pattern = rf"(<!-- {name}: from results[^>]*-->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{whole}\n{m[2]}", page, flags=re.S)


def cells(texts: Iterable[str]) -> list[Cell]:
    return [Cell(one) for one in texts]


def folded(summary: str, inside: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{inside}\n\n</details>"

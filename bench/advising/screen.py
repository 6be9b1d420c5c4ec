"""The sections as a screen of 80 columns and as Markdown; pure functions.

The page is Markdown because advice is pasted into issues, merge requests or lab books, where a
Markdown table stays a table. Terminals, editors and forges show it without a browser.
"""

import textwrap

from bench.advising.words import Section

WIDTH = 80
INDENT = "  "
GAP = "  "
LEAST = 16  # columns of a table's last column, at least


def screen(sections: list[Section]) -> str:
    """Plain text; lines are at most WIDTH wide, except for a single longer word."""
    blocks = []
    for section in sections:
        lines = textwrap.wrap(section.title, WIDTH)
        lines += [line for text in section.sentences for line in paragraph(text)]
        lines += table(section.rows)
        lines += [line for code in section.code for line in command(code)]
        lines += [line for text in section.after for line in paragraph(text)]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def paragraph(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
    )


def table(rows: list[list[str]]) -> list[str]:
    """Aligned columns; the last one wraps in the remaining width."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    left = max(LEAST, WIDTH - len(INDENT) - sum(widths) - len(GAP) * len(widths))
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        wrapped = textwrap.wrap(row[-1], left, break_on_hyphens=False) or [""]
        blank = [" " * width for width in widths]
        for at, part in enumerate(wrapped):
            lines.append((INDENT + GAP.join([*(blank if at else cells), part])).rstrip())
    return lines


def command(code: str) -> list[str]:
    """A line to copy; a shell command that is too long continues on further lines."""
    if len(INDENT + code) <= WIDTH or not code.startswith("python "):
        return [INDENT + code]
    lines = [""]
    for word in code.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if len(INDENT * 2 + longer + " \\") <= WIDTH or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    first, *others = lines
    indented = [INDENT + first, *(INDENT * 2 + line for line in others)]
    return [line + " \\" for line in indented[:-1]] + indented[-1:]


def page(sections: list[Section]) -> str:
    """The same as Markdown."""
    first, *others = sections
    parts = [f"# {first.title}", *first.sentences]
    for section in others:
        parts += [f"## {section.title}", *section.sentences]
        parts += [markdown_table(section.rows)] if section.rows else []
        kind = "sh" if section.code and section.code[0].startswith("python ") else "python"
        parts += ["\n".join([f"```{kind}", *section.code, "```"])] if section.code else []
        parts += section.after
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: list[list[str]]) -> str:
    heads, *others = rows
    lines = [heads, ["---"] * len(heads), *others]
    return "\n".join(f"| {' | '.join(map(escaped, row))} |" for row in lines)


def escaped(cell: str) -> str:
    return cell.replace("|", "\\|")

"""Tables and text on a terminal of 80 columns: numbers and names whole."""

import pytest
from rich.table import Table

from bench.display import terminal

LONG = "transformer.h.0.attn.a_name_that_is_longer_than_the_terminal_is_wide.c_attn.weight.original"


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys, *things) -> list[str]:
    terminal.show(*things)
    return capsys.readouterr().out.splitlines()


def test_numbers_and_headings_stay_whole_where_the_first_column_folds(capsys):
    table = terminal.plain_table("optimizer", *(f"heading {n}" for n in range(6)))
    numbers = [f"{n}23,456.78" for n in range(6)]
    terminal.add(table, "hybrid qkv=per_head orthogonalizer.method=newton_schulz", *numbers)
    lines = shown(capsys, table)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert all(f"heading {n}" in text and numbers[n] in text for n in range(6))


def test_a_table_with_lines_that_is_too_wide_is_written_row_by_row(capsys):
    table = Table(title="a title")
    for head in ("set", *(f"a long heading {n}" for n in range(8))):
        table.add_column(head)
    table.add_row("keller", *(f"value-{n}" for n in range(8)))
    lines = shown(capsys, table)
    assert lines[:2] == ["a title", "keller"] and max(map(len, lines)) <= 80
    assert all(
        f"a long heading {n}: value-{n}" in " ".join(lines).replace("     ", " ") for n in range(8)
    )
    small = Table()
    small.add_column("set")
    small.add_row("keller")
    assert len(shown(capsys, small)) > 3  # it fits: a table


def test_a_name_is_never_broken_and_brackets_are_text(capsys):
    lines = shown(capsys, f"could not be read: {LONG}: [bold]none[/bold]")
    assert lines == ["could not be read:", LONG + ":", "[bold]none[/bold]"]


@pytest.mark.parametrize(("columns", "width"), [(None, 80), ("120", 120)])
def test_elsewhere_than_on_a_terminal_it_is_as_wide_as_most_are(columns, width, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert terminal.width() == width

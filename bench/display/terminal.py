"""What is printed for the person at the terminal."""

from rich.console import Console
from rich.table import Table

from bench.processes import world


def show(table: Table) -> None:
    width = None if Console().is_terminal else 160
    Console(width=width, quiet=world.rank() > 0).print(table)

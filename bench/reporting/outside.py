"""What others measured (outside.yaml): facts with source and date, never mixed with our records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from bench.display.cells import Cell, Table

FILE = Path(__file__).with_name("outside.yaml")


@dataclass(frozen=True)
class Fact:
    """One row of others' table; arm: the arm of experiment=field that is the same method."""

    method: str
    value: float
    arm: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Source:
    """A table of others. measures: what its numbers are; best: low or high; date: of the source."""

    name: str
    measures: str
    unit: str
    best: str
    source: str
    date: str
    facts: list[Fact]


def load(file: Path = FILE) -> list[Source]:
    found = cast(list[dict[str, Any]], OmegaConf.to_container(OmegaConf.load(file)))
    return [
        Source(**one, facts=[Fact(**row) for row in rows])
        for one in found
        for rows in [one.pop("rows")]
    ]


def table(sources: list[Source]) -> Table:
    """All of it, each table's best first."""
    rows = []
    for one in sources:
        order = sorted(one.facts, key=lambda fact: fact.value * (1 if one.best == "low" else -1))
        for fact in order:
            method = [Cell(one.name), Cell(fact.method, fact.note)]
            rows.append([*method, Cell(number(fact.value), one.unit), Cell(fact.arm or "–")])
    return Table([Cell(head) for head in ("table", "method", "theirs", "our arm")], rows)


def beside(arm: str, sources: list[Source]) -> Cell:
    """What others have for an arm's method, table by table."""
    found = [
        f"{number(fact.value)} {one.unit} ({one.name})"
        for one in sources
        for fact in one.facts
        if fact.arm == arm
    ]
    return Cell("; ".join(found) or "–")


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.3f}"

"""What Muon would take of the model, from routing tables; pure functions."""

import math
from collections import Counter
from typing import Any

from optimizers.structure.parameters import Parameter
from optimizers.structure.recognition import NO_STRUCTURE

Row = dict[str, Any]


def takes(rows: list[Row], per_head: list[Row] | None, parameters: list[Parameter]) -> Row:
    """A summary of `hybrid`'s table and, if given, of the table with per-head matrices."""
    muon = [row for row in rows if row["optimizer"] == "Muon"]
    left: Counter[str] = Counter()
    for row in rows:
        if row["optimizer"] != "Muon":
            left[row["role"]] += size(row)
    attention = {p.name for p in parameters if p.attention and p.role == "hidden"}
    return {
        "parameters": sum(map(size, rows)),
        "by_muon": sum(map(size, muon)),
        "tensors": len(muon),
        "matrices": matrices(muon),
        "qkv": matrices([row for row in muon if row["name"] in attention]),
        "qkv_per_head": matrices([row for row in per_head or [] if row["name"] in attention]),
        "attentions": len({p.attention for p in parameters if p.name in attention}),
        "left_to_adamw": dict(left),
        "unread": unread(rows),
    }


def size(row: Row) -> int:
    return math.prod(row["shape"])


def matrices(rows: list[Row]) -> list[list[int]]:
    """[count, rows, columns] of all their matrices, those with most numbers first; a matrix that is
    stacked from several parameters counts once."""
    found: Counter[tuple[int, int]] = Counter()
    seen: set[str] = set()
    for row in rows:
        if row["name"] in seen:
            continue
        seen |= {row["name"], *row["joined_with"]}
        for count, high, wide in row["matrices"] or []:
            found[high, wide] += count
    order = sorted(found, key=lambda shape: (-found[shape] * shape[0] * shape[1], shape))
    return [[found[shape], *shape] for shape in order]


def unread(rows: list[Row]) -> list[dict[str, str]]:
    """Parameters without a known structure, or kept whole because they were not seen in full."""
    return [
        {"name": row["name"], "reason": row["reason"]}
        for row in rows
        if NO_STRUCTURE in row["reason"] or "whole" in row["reason"]
    ]

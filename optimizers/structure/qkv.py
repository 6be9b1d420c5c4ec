"""The matrices that the parameters of a role are read as; for attention `qkv` decides."""

from itertools import groupby
from typing import Any

from optimizers.structure.attention import PARTS
from optimizers.structure.parameters import Parameter
from optimizers.views import SIDE_BY_SIDE, View, matrix_shape, whole

QKV_MODES = ("fused", "split", "per_head", "head_groups")


def build_views(members: list[Parameter], qkv: dict[str, Any] | None) -> list[View]:
    """The matrices of one role: attention projections as `qkv` says, all others whole (one matrix
    per expert and per group of a convolution).

    qkv: {name: fused | split | per_head | head_groups, output: whole | per_head, gate_up: whole |
    split} and, for head_groups, heads_per_group. Without it every tensor is one matrix.
    """
    views: list[View] = []
    done: set[int] = set()
    for key, cut in (("output", "per_head"), ("gate_up", "split")):
        if qkv is not None and qkv.get(key, "whole") not in ("whole", cut):
            raise ValueError(f"qkv.{key}={qkv[key]}: must be whole or {cut}")
    for number, p in enumerate(members):
        if number in done:
            continue
        if qkv is not None and p.attention is not None:
            same = [
                i
                for i, other in enumerate(members)
                if (other.attention, other.layout) == (p.attention, p.layout)
                and _columns(other) == _columns(p)
            ]
            views += attention_views(members, same, qkv)
            done |= set(same)
        elif qkv is not None and p.output_heads and qkv.get("output") == "per_head":
            size = _columns(p) // p.output_heads
            blocks = [[[number, h * size, (h + 1) * size]] for h in range(p.output_heads)]
            views.append(View(members=[number], layout=p.layout, axis=1, blocks=blocks))
        elif qkv is not None and p.halves and qkv.get("gate_up") == "split":
            views.append(_halves(number, p))
        else:
            views.append(whole(number, p.tensor, p.layout, p.groups, p.axis))
    return views


def _columns(p: Parameter) -> int:
    return matrix_shape(p.tensor.shape, p.layout)[1]


def _halves(number: int, p: Parameter) -> View:
    """A gate and what it multiplies, as one matrix each (for every expert)."""
    axis = 1 if p.layout in SIDE_BY_SIDE else 0
    count = p.tensor.shape[0] if p.layout.startswith("batch") else 1
    size = matrix_shape(p.tensor.shape, p.layout)[axis] // count
    pieces = [(i * size + h.start, i * size + h.stop) for i in range(count) for h in p.halves]
    blocks = [[[number, start, stop]] for start, stop in pieces]
    return View(members=[number], layout=p.layout, axis=axis, blocks=blocks)


def attention_views(members: list[Parameter], same: list[int], qkv: dict[str, Any]) -> list[View]:
    """The Q, K and V rows of one attention, which are in one tensor or in several."""
    mode = qkv["name"]
    rows = sorted(
        (PARTS.index(part), head, number, start, stop)
        for number in same
        for part, head, start, stop in members[number].slices
    )
    layout = members[same[0]].layout
    keys = {
        "fused": lambda row: 0,
        "split": lambda row: row[0],
        "per_head": lambda row: row[:2],
        "head_groups": lambda row: (row[0], row[1] // _group_size(members[same[0]], rows, qkv)),
    }
    if mode not in keys:
        raise ValueError(f"qkv={mode}: must be one of {', '.join(QKV_MODES)}")
    blocks = [_merged([list(row[2:]) for row in group]) for _, group in groupby(rows, keys[mode])]
    if all(len({piece[0] for piece in block}) == 1 for block in blocks):
        # Nothing is joined: one view per tensor, so that the table shows each of them.
        return [
            View(
                members=[number],
                layout=layout,
                axis=0,
                blocks=[block for block in blocks if block[0][0] == number],
            )
            for number in same
        ]
    return [View(members=same, layout=layout, axis=0, blocks=blocks)]


def _group_size(p: Parameter, rows: list[tuple], qkv: dict[str, Any]) -> int:
    size = qkv.get("heads_per_group")
    if not isinstance(size, int):
        raise ValueError(f"qkv.heads_per_group={size}: must be a whole number")
    for part in {row[0] for row in rows}:
        heads = len({row[1] for row in rows if row[0] == part})
        if size < 1 or heads % size:
            raise ValueError(
                f"qkv.heads_per_group={size}: does not divide the {heads} heads of {p.attention}"
            )
    return size


def _merged(pieces: list[list[int]]) -> list[list[int]]:
    """Merge neighbouring pieces of one tensor."""
    merged: list[list[int]] = []
    for member, start, stop in pieces:
        if merged and merged[-1][0] == member and merged[-1][2] == start:
            merged[-1][2] = stop
        else:
            merged.append([member, start, stop])
    return merged

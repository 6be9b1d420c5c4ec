"""What the probe saw of attention, by parameter: its Q, K and V rows and its output projection."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from torch import Tensor, nn

from optimizers.structure.seen import Attention, Seen
from optimizers.views import matrix_shape

PARTS = ("q", "k", "v", "gate")  # gate: multiplies an attention's result

# Matches the name of a module that is attention, not that of a layer around attention.
ATTENTION = re.compile(r"Attention(?!\w*(Layer|Block)$)")


class HeadSlice(NamedTuple):
    """Rows start..stop of a tensor belong to `part` (one of PARTS) of `head`."""

    part: str
    head: int
    start: int
    stop: int


@dataclass(frozen=True)
class Fact:
    """What a parameter does around attention; `attention` names the module if it projects for one.

    halves: the rows of a gate, and of what the gate multiplies, if both are in one weight.
    """

    reason: str
    attention: str | None = None
    slices: tuple[HeadSlice, ...] = ()
    output_heads: int | None = None
    halves: tuple[HeadSlice, ...] = ()


def attention_facts(model: nn.Module, seen: Seen) -> dict[int, Fact]:
    """By parameter (its id), its place around the attentions that were seen."""
    parameters = dict(model.named_parameters())
    names = {
        id(p): name
        for name, p in parameters.items()
        if p.ndim == 2 or seen.layouts.get(id(p)) == {"kernel_transposed"}
    }
    facts: dict[int, Fact] = {}
    modules: dict[str, list[set[int]]] = {}  # attentions by module, each with its own weights
    for call in _together(seen.attentions):
        rows = {weight: heads for weight, heads in call.rows.items() if weight in names}
        new = rows.keys() - facts.keys()  # later layers may use the K and V of earlier ones
        where = _common_parent([names[weight] for weight in rows if weight in new])
        known = modules.setdefault(where, [])
        if new not in known:
            known.append(new)
        number = known.index(new)
        where += f" ({number + 1})" if number else ""
        for weight, heads in rows.items():
            place = where if weight in new else facts[weight].attention
            fact = _projection(place, heads, fan_out(parameters[names[weight]], seen))
            if weight not in new and facts[weight] != fact:
                fact = Fact("attentions read it in several ways; kept whole")
            facts[weight] = fact
            bias = parameters.get(names[weight].removesuffix("weight") + "bias")
            if bias is not None:
                facts[id(bias)] = fact
        for weight, columns in call.outputs.items():
            output = _output(list(columns.values()))
            if output is not None:
                facts.setdefault(weight, output)
    return facts


def fan_out(weight: Tensor, seen: Seen) -> int:
    """The rows of a weight when products use it."""
    layouts = seen.layouts.get(id(weight)) or {part[0] for part in seen.parts[id(weight)]}
    name = next(iter(layouts))
    if name.startswith(("kernel", "table")):
        return matrix_shape(weight.shape, name)[0]
    return weight.shape[-1 if all(name.endswith("transposed") for name in layouts) else -2]


def _together(calls: list[Attention]) -> list[Attention]:
    """Merge calls that use the same weights for different heads."""
    groups: dict[frozenset[int], list[Attention]] = {}
    for call in calls:
        groups.setdefault(frozenset(call.rows), []).append(call)
    found = []
    for same in groups.values():
        first, *later = same
        rows = {weight: dict(heads) for weight, heads in first.rows.items()}
        joined = Attention(rows, dict(first.outputs))
        for call in later:
            for weight, heads in call.rows.items():
                known = joined.rows[weight]
                for (part, _), head in heads.items():
                    mine = [other for (p, _), other in known.items() if p == part]
                    if head not in mine:
                        known[part, len(mine)] = head
            joined.outputs.update(call.outputs)
        every = [[r for head in heads.values() for r in head] for heads in joined.rows.values()]
        clean = all(len(set(numbers)) == len(numbers) for numbers in every)
        found += [joined] if clean else same
    return found


def _projection(where: str | None, heads: dict[tuple[str, int], list[int]], count: int) -> Fact:
    """The linear map before attention: whole unless each row belongs to one part of one head."""
    found = {part for part, _ in heads}
    counts = [(sum(p == part for p, _ in heads), part) for part in PARTS if part in found]
    said = ", ".join(
        f"{', '.join(part for _, part in same)} of {count}"
        for count, same in groupby(counts, key=itemgetter(0))
    )
    said += " head" if counts[-1][0] == 1 else " heads"
    if sorted(row for rows in heads.values() for row in rows) != list(range(count)):
        reason = f"{said} from some or shared rows, read by probing; kept whole"
        return Fact(reason)
    slices = tuple(
        HeadSlice(part, head, start, stop)
        for (part, head), rows in heads.items()
        for start, stop in runs(rows)
    )
    return Fact(f"{said}, read by probing", where, slices)


def _output(columns: list[list[int]]) -> Fact | None:
    """The linear map after attention, if each head has its own block of columns."""
    size = len(columns[0])
    in_order = [list(range(i * size, (i + 1) * size)) for i in range(len(columns))]
    if columns != in_order:
        return None
    reason = f"output projection of {len(columns)} heads, read by probing"
    return Fact(reason, output_heads=len(columns))


def unread(model: nn.Module, facts: dict[int, Fact], seen: Seen) -> dict[int, Fact]:
    """For modules called attention: unexplained parameters (by id), each with the reason."""
    found: dict[int, Fact] = {}
    for module in model.modules():
        kind = type(module).__name__
        if not ATTENTION.search(kind):
            continue
        inside = {id(p) for p in module.parameters()}
        parts = {p for c in seen.attentions if inside & c.rows.keys() for p in _parts(c)}
        missing = [part for part in "qkv" if part not in parts]
        for weight in inside - facts.keys():
            if seen.used and not seen.error and weight not in seen.used:
                found[weight] = Fact("the probed forward pass never used it, kept whole")
            elif not parts:
                found[weight] = Fact(f"no softmax(q kᵀ) v could be read in {kind}, kept whole")
            elif missing:
                what = ", ".join(missing)
                found[weight] = Fact(f"rows of {what} were not read in {kind}, kept whole")
    return found


def _parts(call: Attention) -> set[str]:
    return {part for heads in call.rows.values() for part, _ in heads}


def runs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """The numbers as ranges [start, stop) of consecutive numbers, ascending."""
    start, previous = None, 0
    for row in sorted(rows):
        if start is None:
            start = row
        elif row != previous + 1:
            yield start, previous + 1
            start = row
        previous = row
    if start is not None:
        yield start, previous + 1


def _common_parent(names: list[str]) -> str:
    """The innermost module that contains all these parameters."""
    paths = [name.removesuffix(".weight").split(".")[:-1] for name in names]
    shared = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)

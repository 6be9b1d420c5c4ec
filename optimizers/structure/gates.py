"""Weights that hold a gate and what it multiplies (gated MLPs, also in experts), by their rows."""

import re

from torch import nn

from optimizers.structure.attention import Fact, HeadSlice, fan_out, runs
from optimizers.structure.seen import Seen

GATE_AND_UP = re.compile("gate_?up|up_?gate")


def gate_facts(model: nn.Module, seen: Seen) -> dict[int, Fact]:
    """By parameter (its id), which rows are the gate and which are multiplied by it."""
    parameters = dict(model.named_parameters())
    facts: dict[int, Fact] = {}
    for name, weight in parameters.items():
        forms = seen.gated.get(id(weight), set())
        if len(forms) == 1:
            gate, up = next(iter(forms))
            if sorted(gate + up) != list(range(fan_out(weight, seen))):
                continue
            facts[id(weight)] = fact = _fact(gate, up)
            bias = parameters.get(name.removesuffix("weight") + "bias")
            if bias is not None and bias.ndim == 1:
                facts[id(bias)] = fact
        elif weight.ndim > 1 and GATE_AND_UP.search(_own_name(name)):
            if GATE_AND_UP.sub("up", name) in parameters:
                continue  # only a gate, as xLSTM's proj_up_gate beside its proj_up
            facts[id(weight)] = Fact("gate and up in one, by its name, kept whole")
    return facts


def _fact(gate: tuple[int, ...], up: tuple[int, ...]) -> Fact:
    pieces = {"gate": list(runs(list(gate))), "up": list(runs(list(up)))}
    if any(len(ranges) > 1 for ranges in pieces.values()):
        return Fact("gate and up in one, in alternate rows, read by probing; kept whole")
    halves = tuple(HeadSlice(part, 0, *ranges[0]) for part, ranges in pieces.items())
    return Fact("gate and up in one, read by probing", halves=halves)


def _own_name(name: str) -> str:
    """The parameter's own name: gate_up_proj for mlp.gate_up_proj.weight and
    experts.gate_up_proj."""
    return name.removesuffix(".weight").rpartition(".")[2]

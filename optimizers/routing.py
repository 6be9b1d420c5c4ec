"""Roles -> optimizers: an exact partition of a model's parameters, shown as a table."""

import importlib
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.muon import Muon
from optimizers.structure import NO_STRUCTURE, ROLES, Parameter, describe
from optimizers.views import View, as_matrix, block_shapes, whole

QKV_MODES = ("fused", "split", "per_head", "head_groups")


@dataclass
class Routing:
    """The optimizers of a run and the table that says who takes what (routing.json)."""

    optimizers: list[torch.optim.Optimizer]
    table: list[dict[str, Any]]
    roles: dict[str, list[Tensor]] = field(repr=False)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def scale_rates(self, factor: float) -> None:
        """Set every group's rate to its base rate times the schedule's factor."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def rates(self) -> dict[str, float]:
        """The present rate of each role."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return {group["role"]: group["lr"] for group in groups}


def route(model: nn.Module, block: dict[str, Any]) -> Routing:
    """Build the optimizers that an optimizer's YAML asks for.

    block: the resolved `optimizer` block: lr_scale, aux_lr_scale, strict, and roles, a mapping of
    each role (or `default`) to {_target_: ..., lr: ..., ...}.
    Raises ValueError, naming the parameter or setting, where the partition is not exact.
    """
    parameters = describe(model)
    if block.get("strict"):
        refuse_unknown(parameters)
    rules: dict[str, dict[str, Any]] = block["roles"]
    for role in rules:
        if role not in (*ROLES, "default"):
            raise ValueError(f"optimizer.roles.{role}: no such role; there is {', '.join(ROLES)}")
    refuse_unseen_heads(parameters, rules)
    optimizers, rows, roles = [], {}, {}
    for role in ROLES:
        members = [p for p in parameters if p.role == role]
        if not members:
            continue
        rule = rules.get(role, rules.get("default"))
        if rule is None:
            raise ValueError(
                f"optimizer.roles: no rule for role {role}, which {members[0].name} has; "
                "add it or a default"
            )
        optimizer, table = _build(role, members, dict(rule), block)
        optimizers.append(optimizer)
        rows |= table
        roles[role] = [p.tensor for p in members]
    routing = Routing(optimizers, [rows[p.name] for p in parameters], roles)
    assert_exact(model, routing)
    return routing


def refuse_unknown(parameters: list[Parameter]) -> None:
    unknown = [p.name for p in parameters if p.reason == NO_STRUCTURE]
    if unknown:
        raise ValueError(
            f"optimizer.strict=true: {NO_STRUCTURE} for {', '.join(unknown[:3])}"
            + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        )


def refuse_unseen_heads(parameters: list[Parameter], rules: dict[str, dict[str, Any]]) -> None:
    modes = {rule["qkv"]["name"] for rule in rules.values() if rule.get("qkv")}
    cut = modes & {"per_head", "head_groups"}
    if cut and not any(p.attention for p in parameters):
        raise ValueError(f"qkv={cut.pop()}: no attention was seen in this model; use qkv=split")


def assert_exact(model: nn.Module, routing: Routing) -> None:
    """Every trainable parameter is taken by one group of one optimizer, and nothing else is."""
    taken = [p for o in routing.optimizers for g in o.param_groups for p in g["params"]]
    wanted = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    if len({id(p) for p in taken}) != len(taken) or {id(p) for p in taken} != wanted.keys():
        missed = wanted.keys() - {id(p) for p in taken}
        names = ", ".join(wanted[i] for i in missed) or "some parameter twice"
        raise ValueError(f"optimizer.roles: the partition is not exact: {names}")


def _build(
    role: str, members: list[Parameter], rule: dict[str, Any], block: dict[str, Any]
) -> tuple[torch.optim.Optimizer, dict[str, dict[str, Any]]]:
    """One optimizer for one role, and its rows of the table by parameter name."""
    target = rule.pop("_target_")
    cls = locate(target)
    qkv = rule.pop("qkv", None)
    scale = block["lr_scale"] * (1.0 if is_muon(cls) else block["aux_lr_scale"])
    rate = rule.pop("lr") * scale
    tensors = [p.tensor for p in members]
    views = None
    group: dict[str, Any] = {"params": tensors, "lr": rate, "initial_lr": rate, "role": role}
    if issubclass(cls, Muon):
        views = group["views"] = build_views(members, qkv)
    try:
        optimizer = cls([group], lr=rate, **rule)
    except TypeError as error:
        raise ValueError(f"optimizer.roles ({role}): {target}: {error}") from None
    decay = optimizer.param_groups[0].get("weight_decay", 0.0)
    rows = {
        p.name: {
            "name": p.name,
            "shape": list(p.tensor.shape),
            "role": role,
            "optimizer": cls.__name__,
            "lr": rate,
            "weight_decay": decay,
            "matrices": [[1, *p.tensor.shape]] if is_muon(cls) and p.tensor.ndim == 2 else None,
            "joined_with": [],
            "reason": p.reason,
        }
        for p in members
    }
    for view in views or []:
        _show_view(rows, members, view, tensors)
    return optimizer, rows


def _show_view(rows: dict, members: list[Parameter], view: View, tensors: list[Tensor]) -> None:
    shapes = block_shapes(view, tensors)
    matrices = [[len(list(same)), *shape] for shape, same in groupby(shapes)]
    names = [members[i].name for i in view["members"]]
    for name in names:
        rows[name]["matrices"] = matrices
        rows[name]["joined_with"] = [other for other in names if other != name]


def locate(target: str) -> type[torch.optim.Optimizer]:
    """The optimizer class that `_target_` names."""
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"optimizer _target_={target}: {error}") from None
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise ValueError(f"optimizer _target_={target}: not a torch.optim.Optimizer")
    return cls


def is_muon(cls: type) -> bool:
    return "muon" in cls.__name__.lower()


def build_views(members: list[Parameter], qkv: dict[str, Any] | None) -> list[View]:
    """The matrices of one role: attention projections as `qkv` says, all else whole.

    qkv: {name: fused | split | per_head | head_groups, output: whole | per_head} and, for
    head_groups, heads_per_group. Without it every tensor is one matrix.
    """
    views: list[View] = []
    done: set[int] = set()
    if qkv is not None and qkv.get("output", "whole") not in ("whole", "per_head"):
        raise ValueError(f"qkv.output={qkv['output']}: must be whole or per_head")
    for number, p in enumerate(members):
        if number in done:
            continue
        if qkv is not None and p.attention is not None:
            same = [
                i
                for i, other in enumerate(members)
                if (other.attention, other.layout) == (p.attention, p.layout)
            ]
            views += attention_views(members, same, qkv)
            done |= set(same)
        elif qkv is not None and p.output_heads and qkv.get("output") == "per_head":
            columns = as_matrix(p.tensor, p.layout).shape[1]
            size = columns // p.output_heads
            blocks = [[[number, h * size, (h + 1) * size]] for h in range(p.output_heads)]
            views.append(View(members=[number], layout=p.layout, axis=1, blocks=blocks))
        else:
            views.append(whole(number, p.tensor, p.layout))
    return views


def attention_views(members: list[Parameter], same: list[int], qkv: dict[str, Any]) -> list[View]:
    """The Q, K, V rows of one attention, which lie in one tensor or in several."""
    mode = qkv["name"]
    rows = sorted(
        ("qkv".index(part), head, number, start, stop)
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
        # Nothing is joined: one view a tensor, so that the table shows each by itself.
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
    size = qkv["heads_per_group"]
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
    """Neighbouring pieces of one tensor put together."""
    merged: list[list[int]] = []
    for member, start, stop in pieces:
        if merged and merged[-1][0] == member and merged[-1][2] == start:
            merged[-1][2] = stop
        else:
            merged.append([member, start, stop])
    return merged

"""Roles -> optimizers: an exact partition of a model's parameters, shown as a table."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.extras import missing
from optimizers.muon import Muon
from optimizers.rules import asks_for, base_rate, read_rules
from optimizers.sharding.regions import mesh_of
from optimizers.sparse import refuse_other_gradients
from optimizers.structure.parameters import ROLES, Parameter, describe
from optimizers.structure.qkv import build_views
from optimizers.structure.recognition import NO_STRUCTURE
from optimizers.views import View, block_shapes


@dataclass
class Routing:
    """The optimizers of a run and the table of each parameter's optimizer (routing.json).

    The optimizers stay separate so that each one's step is timed, and its state saved, on its own.
    joint.Joint combines them into one, for training loops that accept only one optimizer.
    """

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
        """Set every group's rate to its base rate times the factor of the schedule."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def auxiliary(self) -> set[str]:
        """The roles that are not Muon's, the ones whose rates aux_lr_scale multiplies."""
        others = (optimizer for optimizer in self.optimizers if not is_muon(type(optimizer)))
        return {group["role"] for optimizer in others for group in optimizer.param_groups}

    def rates(self) -> dict[str, float]:
        """The current rate of each role."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return {group["role"]: group["lr"] for group in groups}


def route(
    model: nn.Module,
    block: Mapping[str, Any],
    structure: Mapping[str, Any] | None = None,
    shard: Callable[[nn.Module, list[Parameter]], None] | None = None,
    sharding: str = "replicate",
    forward: Callable[[], Any] | None = None,
) -> Routing:
    """Build the optimizers that an optimizer's YAML asks for.

    block: the resolved `optimizer` block: roles, a mapping of each role (or `default`) to
    {_target_: ..., ...}, where the target is a class or its dotted name; a rule without lr uses the
    class's default. qkv is a name or {name: split, output: whole}. Further keys: strict (false) and
    factors on rates (1.0): lr_scale for all, aux_lr_scale for those that are not Muon's,
    embedding_lr_scale for those of embeddings and heads.
    structure: patterns on parameter names that say what these parameters are (structure.describe).
    shard: distributes the model over processes, in place: its parameters become new ones with the
    same names and shapes. Called with the parameters found, once the whole model has been read.
    sharding: how every Muon of ours works over processes (muon.Muon).
    forward: a call of the model on the smallest input (structure.describe).
    Raises ValueError, naming the parameter or setting, if the partition is not exact.
    """
    rules = read_rules(block.get("roles"))
    parameters = describe(model, forward, structure)
    if block.get("strict"):
        refuse_unknown(parameters)
    refuse_unseen_heads(parameters, rules)
    chosen: list[tuple[str, dict[str, Any], list[Parameter], list[View] | None]] = []
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
        chosen.append((role, dict(rule), members, _views(members, rule)))
    if shard is not None:
        shard(model, parameters)
    tensors = dict(model.named_parameters())
    optimizers, roles = [], {}
    rows: dict[str, dict[str, Any]] = {}
    for role, rule, members, views in chosen:
        members = [replace(p, tensor=tensors[p.name]) for p in members]
        optimizer, table = _build(role, members, rule, views, block, sharding)
        optimizers.append(optimizer)
        rows |= table
        roles[role] = [p.tensor for p in members]
    routing = Routing(optimizers, [rows[p.name] for p in parameters], roles)
    assert_exact(model, routing)
    refuse_other_gradients(model, optimizers)
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
    """Raise ValueError unless each trainable parameter is in exactly one group, and no other is."""
    taken = [p for o in routing.optimizers for g in o.param_groups for p in g["params"]]
    wanted = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    if len({id(p) for p in taken}) != len(taken) or {id(p) for p in taken} != wanted.keys():
        missed = wanted.keys() - {id(p) for p in taken}
        names = ", ".join(wanted[i] for i in missed) or "some parameter twice"
        raise ValueError(f"optimizer.roles: the partition is not exact: {names}")


def _views(members: list[Parameter], rule: dict[str, Any]) -> list[View] | None:
    """How our Muon reads the parameters of a role; None for other optimizers."""
    ours = issubclass(locate(rule["_target_"]), Muon)
    return build_views(members, rule.get("qkv")) if ours else None


def _build(
    role: str,
    members: list[Parameter],
    rule: dict[str, Any],
    views: list[View] | None,
    block: Mapping[str, Any],
    sharding: str,
) -> tuple[torch.optim.Optimizer, dict[str, dict[str, Any]]]:
    """One optimizer for one role, and its rows of the table by parameter name."""
    target = rule.pop("_target_")
    cls = locate(target)
    rule.pop("qkv", None)
    rate = base_rate(role, cls, rule.pop("lr", None)) * _rate_scale(role, cls, block)
    tensors = [p.tensor for p in members]
    group: dict[str, Any] = {"params": tensors, "lr": rate, "initial_lr": rate, "role": role}
    group |= rule.pop("group", {})  # options that an optimizer reads only from its groups
    cut = any(mesh_of(p) is not None for p in tensors)
    if views is not None:
        group["views"] = views
        # Parameters that tensor parallelism leaves whole are neither gathered nor blocks.
        whole = not cut and sharding in ("gather", "blockwise")
        rule = {"sharding": "replicate" if whole else sharding} | rule
    elif cls is torch.optim.Muon and cut:
        raise ValueError(
            f"optimizer={block.get('name', target)}: torch's Muon does not know shards, "
            "use optimizer=hybrid"
        )
    try:
        build: Callable[..., torch.optim.Optimizer] = cls  # each class takes different settings
        optimizer = build([group], lr=rate, **rule)
    except (TypeError, ValueError, ImportError) as error:
        if isinstance(error, ValueError) and issubclass(cls, Muon):
            raise  # the message names the setting
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


def _rate_scale(role: str, cls: type[torch.optim.Optimizer], block: Mapping[str, Any]) -> float:
    scale = block.get("lr_scale", 1.0)
    if not is_muon(cls):
        scale *= block.get("aux_lr_scale", 1.0)
    if role in ("embedding", "head"):
        scale *= block.get("embedding_lr_scale", 1.0)
    return scale


def _show_view(rows: dict, members: list[Parameter], view: View, tensors: list[Tensor]) -> None:
    shapes = block_shapes(view, tensors)
    matrices = [[len(list(same)), *shape] for shape, same in groupby(shapes)]
    names = [members[i].name for i in view["members"]]
    for name in names:
        rows[name]["matrices"] = matrices
        rows[name]["joined_with"] = [other for other in names if other != name]


def locate(target: Any, setting: str = "optimizer _target_") -> type[torch.optim.Optimizer]:
    """The optimizer class that `_target_` is or names. Raises ValueError if it is none."""
    cls, reason = target, None
    if isinstance(target, str):
        module, _, name = target.rpartition(".")
        try:
            cls = getattr(importlib.import_module(module), name)
        except Exception as error:  # a user's own module may raise anything
            if advice := missing(error):
                raise ValueError(f"{setting}={target}: {advice}") from None
            reason = " ".join(str(error).split()) or type(error).__name__
    if reason is None and not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        reason = "not a torch.optim.Optimizer"
    elif reason is None and (needs := asks_for(cls)):
        reason = f"needs {needs}, which no loop here gives"
    if reason is not None:
        raise ValueError(f"{setting}={target}: {reason}; must be a class as torch.optim.AdamW")
    return cls


def is_muon(cls: type) -> bool:
    return "muon" in cls.__name__.lower()

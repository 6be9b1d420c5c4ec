"""Reads what an optimizer block says of each role, and names mistakes."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optimizers.structure.parameters import ROLES
from optimizers.structure.qkv import QKV_MODES


def read_rules(rules: Any) -> dict[str, dict[str, Any]]:
    """The rule of each role, with the defaults of `qkv` filled in.

    Raises ValueError, naming the role, for an invalid rule.
    """
    if not isinstance(rules, Mapping) or not rules:
        raise ValueError(
            f"optimizer.roles={rules}: must map roles ({', '.join(ROLES)}, default) to "
            "{_target_: …, …}"
        )
    found = {}
    for role, rule in rules.items():
        if role not in (*ROLES, "default"):
            raise ValueError(f"optimizer.roles.{role}: no such role; accepted: {', '.join(ROLES)}")
        if not isinstance(rule, Mapping) or "_target_" not in rule:
            raise ValueError(
                f"optimizer.roles.{role}={rule}: must have a _target_, as torch.optim.AdamW"
            )
        qkv = rule.get("qkv")
        if isinstance(qkv, str):
            qkv = {"name": qkv}
        if not isinstance(qkv, Mapping | None):
            raise ValueError(
                f"optimizer.roles.{role}.qkv={qkv}: must be {', '.join(QKV_MODES)} or "
                "{name: …, output: …}"
            )
        own = {key: as_dtype(value) for key, value in rule.items()}
        found[role] = {**own, "qkv": None if qkv is None else {"name": "split", **qkv}}
    return found


def as_dtype(value: Any) -> Any:
    """The dtype that a text such as torch.bfloat16 names, because settings files have only text."""
    if isinstance(value, str) and value.startswith("torch."):
        found = getattr(torch, value.removeprefix("torch."), None)
        return found if isinstance(found, torch.dtype) else value
    return value


def asks_for(cls: type[torch.optim.Optimizer]) -> str | None:
    """What an optimizer needs besides parameters and gradients; None for a usual one.

    Some are built from a model or another optimizer; some differentiate the gradients, or call a
    closure in their step.
    """
    taken = inspect.signature(cls).parameters
    first = next(iter(taken.values()))
    if "params" not in taken and first.kind is not inspect.Parameter.VAR_POSITIONAL:
        return f"its {first.name}"
    if any(name.startswith("hessian") for name in taken):
        return "the graph of the gradients"
    closure = inspect.signature(cls.step).parameters.get("closure")
    return "a closure" if closure is not None and closure.default is closure.empty else None


def base_rate(role: str, cls: type[torch.optim.Optimizer], rate: Any) -> float | Tensor:
    """The rate of a rule or, if it has none, the optimizer's initial rate."""
    if rate is None:
        own = inspect.signature(cls).parameters.get("lr")
        rate = own.default if own is not None else None
    if isinstance(rate, bool) or not isinstance(rate, int | float | Tensor):
        said = "has none of its own" if rate is inspect.Parameter.empty else f"{rate} is no number"
        raise ValueError(f"optimizer.roles.{role}.lr: must be a number; {cls.__name__}: {said}")
    return rate

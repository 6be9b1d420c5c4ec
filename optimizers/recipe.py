"""`hybrid`: the recipe of Muon and AdamW for any model, as one optimizer."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from optimizers.joint import Joint
from optimizers.routing import route
from optimizers.structure.recognition import NO_STRUCTURE


def hybrid(
    model: nn.Module,
    lr: float = 2e-3,
    *,
    weight_decay: float = 0.1,
    qkv: str | Mapping[str, Any] = "split",
    roles: Mapping[str, Mapping[str, Any]] | None = None,
    structure: Mapping[str, Any] | None = None,
    forward: Callable[[], Any] | None = None,
    strict: bool = False,
) -> Joint:
    """Muon on a model's hidden matrices and AdamW on everything else, as one optimizer.

    Muon's author recommends this recipe (https://kellerjordan.github.io/posts/muon/). The update
    scales let one rate serve both (arXiv 2502.16982).

    lr, weight_decay: for every role; vectors and positions do not decay.
    qkv: how attention's weights are read: split (Q, K and V each a matrix), fused, per_head, or a
        mapping {name: ..., output: whole | per_head, heads_per_group: ...}.
    roles: different settings by role (hidden, conv, embedding, position, head, vector) or for
        everything that AdamW takes (default): {"head": {"lr": 1e-3}}. With a `_target_`, a class or
        its dotted name, another optimizer takes the role, with the settings given beside it.
    structure: patterns on parameter names that say what these parameters are (structure.describe).
    forward: a call of the model on a small input, `lambda: model(idx)`, which shows how its
        attention works; transformers models need none.
    strict: refuse a model with any parameter of unknown structure.

    The result's `table` says for each parameter which optimizer takes it and why; parameters that
    could not be read in full cause a warning. Frozen parameters are left out. Raises ValueError,
    naming the parameter or the setting, for what is impossible.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"hybrid: takes the model (an nn.Module), not a {type(model).__name__}")
    for role, change in (roles or {}).items():
        if not isinstance(change, Mapping):
            raise ValueError(f"hybrid: roles: {role}={change}: must be settings, as {{'lr': 1e-3}}")
    block = {"strict": strict, "roles": recipe(lr, weight_decay, qkv, roles or {})}
    routing = route(model, block, structure, forward=forward)
    if not routing.optimizers:
        raise ValueError("hybrid: the model has no trainable parameter")
    unread = [
        row["name"]
        for row in routing.table
        if NO_STRUCTURE in row["reason"] or "whole" in row["reason"]
    ]
    if unread:
        names = ", ".join(unread[:3]) + (f" and {len(unread) - 3} more" if unread[3:] else "")
        warnings.warn(
            f"hybrid: not read in full: {names}; the optimizer's `table` has the reasons, "
            "`structure=` or `forward=` can tell more",
            stacklevel=2,
        )
    parts = {}
    for part in routing.optimizers:
        for group in part.param_groups:
            del group["initial_lr"]  # for the schedule of a run; torch's schedulers set their own
        parts[part.param_groups[0]["role"]] = part
    return Joint(parts, routing.table)


def recipe(
    lr: float,
    weight_decay: float,
    qkv: str | Mapping[str, Any],
    changes: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """The rule of each role (routing.route), as in conf/optimizer/hybrid.yaml, with `changes`."""
    common = {"lr": lr, "weight_decay": weight_decay}
    muon = {
        "_target_": "optimizers.muon.Muon",
        **common,
        "momentum": 0.95,
        "nesterov": True,
        "scale": "match_rms_adamw",
        "qkv": qkv,
    }
    adamw = {"_target_": "torch.optim.AdamW", **common, "betas": (0.9, 0.95), "eps": 1e-8}
    default = _changed(adamw | {"fused": True}, changes.get("default", {}))
    still = default | {"weight_decay": 0.0} if "weight_decay" in default else default
    usual = {"hidden": muon, "vector": still, "position": still}
    rules = {role: _changed(usual.get(role, default), changes.get(role, {})) for role in usual}
    others = {role: _changed(default, change) for role, change in changes.items()}
    return others | rules | {"default": default}


def _changed(usual: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The rule after a change; settings of another optimizer replace the rule as a whole."""
    return dict(change) if "_target_" in change else usual | dict(change)

"""Prepares a state dict for Muon: checks its origin and shapes, and casts nothing."""

from typing import Any

import torch
from torch import Tensor

from optimizers.checks import check, check_state
from optimizers.views import View

THEIRS = ("ns_coefficients", "eps", "ns_steps", "adjust_lr_fn")  # settings of torch.optim.Muon


class AsSaved:
    """Wraps a parameter's state so that torch passes it on unchanged: torch casts the states that
    it can open to the parameter's dtype."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def on(self, device: torch.device) -> dict[str, Any]:
        return {
            name: value if name == "step" else moved(value, device)  # as torch leaves it
            for name, value in self._values.items()
        }


def moved(value: Any, device: torch.device) -> Any:
    """A state's value with its tensors moved to a device; other values stay as they are."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(item, device) for item in value)
    return value


def prepared(
    state_dict: dict[str, Any], groups: list[dict[str, Any]], views: list[list[View]]
) -> dict[str, Any]:
    """The state dict as torch's load needs it, for these param groups, which `views` read.

    Raises ValueError if the state is from an optimizer that Muon cannot continue from, if a setting
    makes no sense here, or if a state has a different shape than its parameter needs. torch itself
    checks the numbers of groups and of their parameters.
    """
    saved = state_dict["param_groups"]
    if [len(g["params"]) for g in saved] != [len(g["params"]) for g in groups]:
        return state_dict
    settled = [settings(*pair) for pair in zip(saved, groups, strict=True)]
    state = dict(state_dict["state"])
    for new, group, own in zip(settled, groups, views, strict=True):
        merged = group | new | {"params": group["params"]}
        check(merged)
        for member, key in enumerate(new["params"]):
            if isinstance(values := state.get(key), dict):
                check_state(merged, member, values, own)
                state[key] = AsSaved(values)
    return state_dict | {"state": state, "param_groups": settled}


def settings(saved: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The settings of a saved group, for one of this optimizer's groups.

    How tensors are read, and by which processes, comes from this optimizer, not from the saved one.
    torch.optim.Muon's settings are converted to ours, except for those of its iteration.
    """
    if "orthogonalizer" in saved:
        kept = {name: value for name, value in saved.items() if name != "views"}
        return kept | {"sharding": own["sharding"]}
    if "adjust_lr_fn" not in saved:
        foreign = sorted(set(saved) - set(own))
        raise ValueError(
            f"optimizer state: it is another optimizer's, whose groups have {', '.join(foreign)}; "
            "Muon resumes from its own state or torch.optim.Muon's"
        )
    kept = {name: value for name, value in saved.items() if name not in THEIRS}
    rule = saved["adjust_lr_fn"] or "original"
    own = {name: value for name, value in own.items() if name not in ("params", "param_names")}
    return own | kept | {"scale": rule, "momentum_form": "ema"}


def unpacked(state: dict[Any, Any]) -> None:
    """Replace each wrapper that `prepared` made by the parameter's state in it."""
    for p, values in state.items():
        if isinstance(values, AsSaved):
            state[p] = values.on(p.device)

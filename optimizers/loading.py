"""A state dict made ready for Muon: whose it is, whether it fits, and nothing cast."""

from typing import Any

import torch
from torch import Tensor

from optimizers.checks import check, check_state
from optimizers.views import View

THEIRS = ("ns_coefficients", "eps", "ns_steps", "adjust_lr_fn")  # settings of torch.optim.Muon


class AsSaved:
    """A parameter's state, which torch passes on as it is: what it opens it casts to the
    parameter's dtype."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def on(self, device: torch.device) -> dict[str, Any]:
        return {
            name: value if name == "step" else moved(value, device)  # as torch leaves it
            for name, value in self._values.items()
        }


def moved(value: Any, device: torch.device) -> Any:
    """A state's value with its tensors on a device; what is no tensor stays."""
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
    """The state dict as torch's load should find it, for these param groups, read by `views`.

    Raises ValueError where it is of an optimizer that Muon cannot go on from, or a setting makes
    no sense here, or a state has another shape than its parameter needs. That the number of groups
    and of their parameters is right torch says itself.
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
    """A saved group's settings for one of ours.

    How tensors are read, and by which processes, is of this optimizer and not of the saved one.
    torch.optim.Muon's settings become ours, but for its iteration.
    """
    if "orthogonalizer" in saved:
        kept = {name: value for name, value in saved.items() if name != "views"}
        return kept | {"sharding": own["sharding"]}
    if "adjust_lr_fn" not in saved:
        foreign = sorted(set(saved) - set(own))
        raise ValueError(
            f"optimizer state: it is another optimizer's, whose groups have {', '.join(foreign)}; "
            "Muon goes on from its own state or torch.optim.Muon's"
        )
    kept = {name: value for name, value in saved.items() if name not in THEIRS}
    rule = saved["adjust_lr_fn"] or "original"
    own = {name: value for name, value in own.items() if name not in ("params", "param_names")}
    return own | kept | {"scale": rule, "momentum_form": "ema"}


def unpacked(state: dict[Any, Any]) -> None:
    """Each parameter's state in the place of what `prepared` made of it."""
    for p, values in state.items():
        if isinstance(values, AsSaved):
            state[p] = values.on(p.device)

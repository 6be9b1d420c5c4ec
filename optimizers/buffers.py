"""The state that Muon keeps for a parameter, made at its first step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimizers.checks import MOMENTUM_DTYPES, called
from optimizers.quantized import count_scales
from optimizers.second_moment import neurons
from optimizers.sharding.regions import local
from optimizers.views import View


def needed(
    state: dict[str, Tensor], group: dict[str, Any], member: int, views: Callable[[], list[View]]
) -> dict[str, Tensor]:
    """The parts on this process of the state tensors that a step needs, created if missing.

    Raises ValueError for a new parameter of zeros whose norm is to be kept.
    """
    p, second = group["params"][member], group["second_moment"]
    if "momentum_buffer" not in state:
        _refuse_zeros(group, member)
        dtype = MOMENTUM_DTYPES[group["momentum_dtype"]]
        state["momentum_buffer"] = torch.zeros_like(p, dtype=dtype)
        if dtype == torch.int8:
            scales = count_scales(local(p).numel())
            state["momentum_scale"] = torch.zeros(scales, dtype=torch.float32, device=p.device)
    if second == "element" and "element_moment" not in state:
        state["element_moment"] = torch.zeros_like(p)
    if second == "neuron" and "neuron_moment" not in state:
        rows = neurons(views(), group["params"], member)
        state["neuron_moment"] = torch.zeros(rows, dtype=torch.float32, device=p.device)
    names = ["momentum_buffer", "momentum_scale", f"{second}_moment"]
    return {name: local(state[name]) for name in names if name in state}


def _refuse_zeros(group: dict[str, Any], member: int) -> None:
    p = local(group["params"][member])
    if group["keep_norm"] and p.numel() and not p.any():
        raise ValueError(
            f"optimizer keep_norm=True: {called(group, member)} is zero and would stay so; "
            "initialize it otherwise, or give it to another role"
        )

"""How many bytes an optimizer keeps between steps, measured and predicted."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.checks import MOMENTUM_DTYPES
from optimizers.muon import Muon
from optimizers.quantized import count_scales, decode
from optimizers.second_moment import neurons
from optimizers.sharding.regions import local

# Their names in the states of torch's and others' optimizers.
FIRST_MOMENTS = ("momentum_buffer", "exp_avg", "momentum", "m", "d")


def tensors_in(value: object) -> Iterator[Tensor]:
    """Every tensor in a nested state."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def state_bytes(optimizers: list[torch.optim.Optimizer]) -> dict:
    """Bytes of all state tensors: total, predicted (None if unknown), and by role, optimizer class
    and dtype. A DTensor counts with the part on this process."""
    by_role: Counter[str] = Counter()
    by_optimizer: Counter[str] = Counter()
    by_dtype: Counter[str] = Counter()
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                for tensor in map(local, tensors_in(optimizer.state.get(p, {}))):
                    size = tensor.numel() * tensor.element_size()
                    by_role[group["role"]] += size
                    by_optimizer[type(optimizer).__name__] += size
                    by_dtype[str(tensor.dtype).removeprefix("torch.")] += size
    return {
        "total": by_role.total(),
        "predicted": predicted_bytes(optimizers),
        "by_role": dict(by_role),
        "by_optimizer": dict(by_optimizer),
        "by_dtype": dict(by_dtype),
    }


def predicted_bytes(optimizers: list[torch.optim.Optimizer]) -> int | None:
    """Bytes by the algorithms: two values per parameter for Adam, one for Muon, more for variants.

    Adam also counts its steps in one fp32 number per tensor; SparseAdam uses a plain number, and
    NAdam has one fp32 number more.
    """
    total = 0
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for member, p in enumerate(group["params"]):
                if not p.requires_grad:
                    continue
                values = local(p).numel() * p.element_size()
                if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
                    total += (3 if group["amsgrad"] else 2) * values + 4
                elif type(optimizer) is torch.optim.SparseAdam:
                    total += 2 * values
                elif type(optimizer) is torch.optim.NAdam:
                    total += 2 * values + 8
                elif type(optimizer) is torch.optim.SGD:
                    total += values if group["momentum"] else 0
                elif type(optimizer) is torch.optim.Muon:
                    total += values
                elif type(optimizer) is Muon:
                    total += predicted_muon_bytes(optimizer, group, member)
                else:
                    return None
    return total


def predicted_muon_bytes(optimizer: Muon, group: dict, member: int) -> int:
    """Bytes of our Muon's state for one parameter: the momentum with the scales of its codes, and
    second moments if any."""
    p = group["params"][member]
    dtype = MOMENTUM_DTYPES[group["momentum_dtype"]] or p.dtype
    held = local(p).numel()
    total = held * dtype.itemsize
    if dtype == torch.int8:
        total += count_scales(held) * torch.float32.itemsize
    if group["second_moment"] == "element":
        total += held * p.element_size()
    if group["second_moment"] == "neuron":
        total += neurons(optimizer.views(group), group["params"], member) * torch.float32.itemsize
    return total


def momentum(optimizers: list[torch.optim.Optimizer], model: nn.Module) -> dict[str, Tensor]:
    """By parameter name the first moment that its optimizer keeps, in the parameter's shape; 8-bit
    momentum decoded."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for optimizer in optimizers:
        for p, state in optimizer.state.items():
            for key in FIRST_MOMENTS:
                if key in state:
                    coded = state[key].dtype == torch.int8
                    kept = decode(state[key], state["momentum_scale"]) if coded else state[key]
                    found[names[id(p)]] = kept.contiguous()
    return found


def views(optimizers: list[torch.optim.Optimizer], model: nn.Module) -> list[dict[str, Any]]:
    """How Muon reads the model as matrices: for each view the `names` of its tensors and the `view`
    itself, whose members are indices into the names."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = []
    for optimizer in optimizers:
        if not isinstance(optimizer, Muon):
            continue
        for group in optimizer.param_groups:
            for view in optimizer.views(group):
                place = {member: i for i, member in enumerate(view["members"])}
                blocks = [[[place[k], *ends] for k, *ends in block] for block in view["blocks"]]
                found.append(
                    {
                        "names": [names[id(group["params"][k])] for k in place],
                        "view": {**view, "members": list(place.values()), "blocks": blocks},
                    }
                )
    return found

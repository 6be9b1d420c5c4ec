"""How many bytes an optimizer keeps between steps: measured, and predicted."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from optimizers.muon import Muon


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
    """Bytes of all state tensors: total, predicted (None where not known), by role, optimizer
    class and dtype."""
    by_role: Counter[str] = Counter()
    by_optimizer: Counter[str] = Counter()
    by_dtype: Counter[str] = Counter()
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                for tensor in tensors_in(optimizer.state.get(p, {})):
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
    """What the algorithms say: two values a parameter for Adam, one for Muon.

    Adam also counts its steps in one fp32 number a tensor.
    """
    total = 0
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                values = p.numel() * p.element_size()
                if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
                    total += (3 if group["amsgrad"] else 2) * values + 4
                elif type(optimizer) in (Muon, torch.optim.Muon):
                    total += values
                else:
                    return None
    return total


def momentum(optimizers: list[torch.optim.Optimizer], model: nn.Module) -> dict[str, Tensor]:
    """By parameter name the first moment that its optimizer keeps, of the parameter's shape."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for optimizer in optimizers:
        for p, state in optimizer.state.items():
            for key in ("momentum_buffer", "exp_avg"):
                if key in state:
                    found[names[id(p)]] = state[key].contiguous()
    return found

"""Memory that successive stacks share."""

from math import prod

import torch
from torch import Tensor


class Workspace:
    """Uninitialised tensors by name; each one reuses the memory of the last with its name.

    On a CPU every fresh allocation of megabytes costs page faults: a tenth of a step.
    On a GPU torch itself keeps freed memory, and under torch.compile the compiler plans it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._keeps = device.type == "cpu" and not torch.compiler.is_compiling()
        self._kept: dict[tuple[str, torch.dtype], Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if not self._keeps:
            return torch.empty(shape, dtype=dtype, device=self.device)
        size, kept = prod(shape), self._kept.get((name, dtype))
        if kept is None or kept.numel() < size:
            del kept
            self._kept.pop((name, dtype), None)  # freed before the larger tensor is allocated
            self._kept[name, dtype] = kept = torch.empty(size, dtype=dtype, device=self.device)
        return kept[:size].view(shape)

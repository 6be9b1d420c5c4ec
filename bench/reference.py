"""The overhead over AdamW: its step, timed on scratch copies in turn with the run's own."""

import statistics
from typing import Any

import torch
from torch import Tensor

from bench import meter


class Reference:
    """Times AdamW's step with the run's own gradients, on the first steps of a run.

    pairs: [forward+backward, own step, AdamW's step] in ms of each step so far; the first one
    warms up. The copies exist only from the first to the last such step.
    """

    def __init__(self, parameters: list[Tensor], device: str, steps: int, pairs: list) -> None:
        self.parameters, self.device, self.pairs = parameters, device, pairs
        self.wanted = steps + 1 if steps else 0
        self.adamw: torch.optim.Optimizer | None = None

    def wants(self) -> bool:
        return len(self.pairs) < self.wanted

    def time(self, forward_backward_ms: float, own_ms: float) -> None:
        if self.adamw is None:
            copies = [p.detach().clone() for p in self.parameters]
            self.adamw = torch.optim.AdamW(copies, weight_decay=0.1, fused=True)
        copies = self.adamw.param_groups[0]["params"]
        for copy, p in zip(copies, self.parameters, strict=True):
            copy.grad = p.grad
        began = meter.clock(self.device)
        self.adamw.step()
        adamw_ms = 1e3 * (meter.clock(self.device) - began)
        self.pairs.append([forward_backward_ms, own_ms, adamw_ms])

    def release(self) -> bool:
        """Free the copies; whether there were any."""
        had, self.adamw = self.adamw is not None, None
        return had


def overhead(pairs: list[list[float]], units_per_step: int) -> dict[str, Any] | None:
    """(forward+backward + own step) / (forward+backward + AdamW's step) - 1, the median."""
    values = [(fb + own) / (fb + adamw) - 1 for fb, own, adamw in pairs[1:]]
    if not values:
        return None
    value = statistics.median(values)
    return {"value": value, "units_per_step": units_per_step, "n": len(values)}

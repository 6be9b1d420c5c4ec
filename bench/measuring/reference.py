"""The overhead over AdamW, whose step is timed on scratch copies in turn with the run's own."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.measuring import meter
from optimizers.sharding.regions import local


class Reference:
    """Times AdamW's step with the run's own gradients, in the first steps of a run.

    Parameters that are sharded over processes are timed on this process's shards: AdamW needs no
    more.

    pairs: [forward+backward, own step, AdamW's step] in ms for each such step, without the first
    one, which warms up. The copies exist only while steps are still wanted.
    """

    def __init__(self, parameters: Sequence[Tensor], device: str, steps: int, pairs: list) -> None:
        self.parameters, self.device, self.steps, self.pairs = parameters, device, steps, pairs
        self.adamw: torch.optim.Optimizer | None = None

    def wants(self) -> bool:
        return len(self.pairs) < self.steps

    def time(self, forward_backward_ms: float, own_ms: float) -> None:
        """Time one step of both; the last call frees the copies."""
        first = self.adamw is None
        if self.adamw is None:
            copies = [local(p.detach()).clone() for p in self.parameters]
            self.adamw = torch.optim.AdamW(copies, weight_decay=0.1, fused=True)
        copies = self.adamw.param_groups[0]["params"]
        for copy, p in zip(copies, self.parameters, strict=True):
            grad = p.grad
            if grad is not None:
                grad = local(grad.to_dense() if grad.is_sparse else grad)
            copy.grad = grad
        began = meter.clock(self.device)
        self.adamw.step()
        adamw_ms = 1e3 * (meter.clock(self.device) - began)
        if not first:
            self.pairs.append([forward_backward_ms, own_ms, adamw_ms])
        if not self.wants():
            self.adamw = None


def overhead(pairs: list[list[float]], units_per_step: int) -> dict[str, Any] | None:
    """(forward+backward + own step) / (forward+backward + AdamW's step) - 1, the median."""
    values = [(fb + own) / (fb + adamw) - 1 for fb, own, adamw in pairs]
    if not values:
        return None
    value = statistics.median(values)
    return {"value": value, "units_per_step": units_per_step, "n": len(values)}

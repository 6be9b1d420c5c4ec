"""The mean of a run's weights over its last steps; it is kept separately and changes nothing else.

An average has the effect of a falling rate without one (Izmailov et al. 2018, Averaging Weights
Leads to Wider Optima and Better Generalization). It is the control for schedules that end low.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

ROUNDING = 1e-9  # of a run's progress


class Average:
    """The uniform mean of a model's parameters after each step in the last `share` of a run.

    share: from 0 (excluded) to 1; None: average no step and keep nothing.
    """

    def __init__(self, model: nn.Module, share: float | None) -> None:
        self.parameters = dict(model.named_parameters())
        self.share = share
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, progress: float) -> None:
        """Call after a step, with the share of the run that is then done."""
        if self.share is None or progress <= 1 - self.share + ROUNDING:
            return
        self.count += 1
        for name, p in self.parameters.items():
            if self.count == 1:
                self.mean[name] = p.detach().clone()
            else:
                self.mean[name].lerp_(p, 1 / self.count)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model's weights are the mean; afterwards they are restored."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, p in self.parameters.items():
            own = p.detach().clone()
            p.copy_(self.mean[name])
            self.mean[name] = own

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"count": self.count, "mean": self.mean}

    def load(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.mean = {name: mean.to(self.parameters[name]) for name, mean in state["mean"].items()}

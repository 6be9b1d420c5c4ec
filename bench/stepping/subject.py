"""The model, batches and gradients that all arms of a step benchmark share."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.communication import facts as communication_facts
from bench.data import random_batches
from bench.measuring import flops, meter, traffic
from bench.processes import parallel
from bench.processes.world import ALONE, World
from bench.settings.schema import Settings
from bench.training import activations, loss, prepare
from optimizers.routing import Routing
from optimizers.sharding.regions import local


class Subject:
    """The model, a random batch of each size, and the gradients of the last batch that it ran.

    Of many processes each has its part of the model and of a batch, as `world` says.

    All arms step the same parameters at rate zero, so that their values do not change. The work of
    a step does not depend on the rate, so one model is enough.
    """

    def __init__(self, settings: Settings, sizes: list[int], world: World = ALONE) -> None:
        self.settings, self.device, self.world = settings, settings.train.device, world
        self.source = random_batches.for_model(settings)
        self.model = self._fresh()
        self.take(sizes)
        self.forward = parallel.forward(self.model, world)
        self.loss = torch.compile(loss.of, dynamic=False) if settings.train.compile else loss.of
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.gradients: list[Tensor | None] = [None] * len(self.parameters)

    def take(self, sizes: list[int]) -> None:
        """Make batches of these sizes. Raises UserError if the largest does not fit into memory."""
        if self.world.mesh is None:
            batch, setting = partial(self.source.batch, seed=self.settings.seed), f"batches={sizes}"
            train = self.settings.train
            activations.check(self.model, batch, max(sizes), setting, train, self.world)
        self.batches = {
            size * self.source.units_per_example: self._batch(size) for size in sorted(sizes)
        }

    def _batch(self, size: int) -> dict[str, Tensor]:
        batch = self.world.part(self.source.batch(size, self.settings.seed))
        return {key: value.to(self.device) for key, value in batch.items()}

    def _fresh(self) -> nn.Module:
        """The model with its first weights, sharded over the processes if they share it."""
        model = prepare.model(self.settings, self.source)
        if self.world.mesh is not None:
            prepare.routing(self.settings, model, self.world)
        return model

    def route(self, settings: Settings) -> Routing:
        """The optimizers of the model."""
        if self.world.mesh is None:
            return prepare.routing(settings, self.model)
        whole = prepare.model(settings, self.source)
        return prepare.routing(settings, whole, self.world, cut=self.model)

    def run(self, units: int, compiled: bool = True) -> None:
        """Forward and backward on the batch with this many units, under the benchmark's precision.

        compiled: use the compiled model if the settings ask for one; otherwise the bare model.
        """
        compute, forward = (self.loss, self.forward) if compiled else (loss.of, self.model)
        bf16 = self.settings.train.precision == "bf16"
        with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
            mean = compute(forward, self.batches[units])[0]
        mean.backward()

    def time(self, units: int) -> float:
        """Milliseconds of forward and backward when gradients do not exist yet."""
        self.clear()
        began = meter.clock(self.device)
        self.run(units)
        ended = meter.clock(self.device)
        self.gradients = [p.grad for p in self.parameters]
        return 1e3 * (ended - began)

    def clear(self) -> None:
        self.gradients = [None] * len(self.parameters)
        self.model.zero_grad(set_to_none=True)

    def lend_gradients(self) -> None:
        """Give each parameter its gradient again, because some optimizers remove it."""
        for p, gradient in zip(self.parameters, self.gradients, strict=True):
            p.grad = gradient

    def restore(self) -> None:
        """Restore the first weights, because a failed optimizer may have changed them."""
        with torch.no_grad():
            for p, first in zip(self.model.parameters(), self._fresh().parameters(), strict=True):
                local(p).copy_(local(first))

    def rows_per_unit(self) -> float | None:
        """Rows that a hidden linear map multiplies per token (image); None if it has no such map.

        It is 1 for text; for a vision transformer the number of patches and the class token.
        """
        units, batch = next(iter(self.batches.items()))
        rows: list[int] = []

        def note(module: nn.Module, inputs: tuple, kwargs: dict) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                rows.append(inputs[0].numel() // inputs[0].shape[-1])

        kinds = ("Linear", "Conv1D")
        linear = [m for m in self.model.modules() if type(m).__name__ in kinds]
        handles = [m.register_forward_pre_hook(note, with_kwargs=True) for m in linear]
        with torch.no_grad():
            loss.of(self.model, batch)
        for handle in handles:
            handle.remove()
        parallel.rest(self.model)
        return max(rows) * self.world.data_size / units if rows else None

    def count(self, units: int) -> flops.Count:
        """The FLOPs of one forward and backward."""
        self.clear()
        return flops.count(lambda: self.run(units, compiled=False))

    def traffic(self) -> dict[str, Any]:
        """Communication of forward and backward on the largest batch, and its prediction."""
        units = max(self.batches)
        rows = (self.rows_per_unit() or 0.0) * units / self.world.data_size
        for _ in range(2):  # DDP arranges its buckets after the first
            self.time(units)
        self.clear()
        counted = traffic.count(lambda: self.run(units))
        itemsize = 2 if self.settings.train.precision == "bf16" else 4
        world = self.world
        predicted = communication_facts.forward_backward(
            self.model, world.strategy, dict(world.shape), rows, itemsize
        )
        return {"units": units, "collectives": counted, "predicted": predicted}

    def peak(self, units: int) -> int:
        """The most bytes that one forward and backward holds, including gradients."""
        self.time(units)  # allocates what only a first call needs
        self.clear()
        return meter.held(self.device, lambda: self.run(units)).peak

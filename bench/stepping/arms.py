"""What takes turns: one model with its gradients, and optimizers with states of their own."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.communication import facts as communication_facts
from bench.data import random_batches
from bench.measuring import flops, meter, traffic
from bench.processes import parallel
from bench.processes.world import ALONE, World
from bench.settings.errors import UserError
from bench.settings.schema import Settings
from bench.training import activations, loss, prepare
from optimizers import overlap
from optimizers.orthogonalize import Orthogonalizer
from optimizers.routing import Routing
from optimizers.sharding.regions import local
from optimizers.state import state_bytes

PEAKS = 3  # steps with measured memory; in the first, the profiler misses older tensors


class Spent(NamedTuple):
    """Milliseconds of one process's step by role and by part (traffic.PARTS). `bare` are the parts
    of another step, in which each collective is waited for at once."""

    by_role: dict[str, float]
    parts: dict[str, float]
    bare: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.by_role.values())


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


class Arm:
    """One optimizer setting: its routing and state exist between `build` and `free`."""

    def __init__(self, label: str, settings: Settings, subject: Subject) -> None:
        self.label, self.settings, self.subject = label, settings, subject
        self.routing: Routing | None = None
        self.overlap = settings.optimizer.get("overlap", "none")
        self.overlaps: list[overlap.Overlap] = []  # of steps that begin in the backward pass

    def build(self) -> None:
        """Route the parameters and take the first step, which creates the state."""
        self.routing = self.subject.route(self.settings)
        self.routing.scale_rates(0.0)
        self.overlaps = overlap.overlaps(self.routing.optimizers, self.overlap)
        self.step()
        norms = torch._foreach_norm([local(p.detach()) for p in self.subject.parameters])
        if not all(norm.isfinite() for norm in norms):
            raise UserError("a step at rate zero leaves parameters that are not finite")

    @property
    def built(self) -> Routing:
        """The routing, which must exist."""
        assert self.routing is not None
        return self.routing

    def begun(self) -> AbstractContextManager[None]:
        """Wraps a forward and backward in which the step begins, if it does so."""
        return overlap.begun(self.overlaps)

    def free(self) -> None:
        for one in self.overlaps:
            one.remove()
        self.routing, self.overlaps = None, []
        meter.release()

    def step(self, at_once: bool = False) -> Spent:
        """One step: milliseconds by role, with the device synchronised after each.

        at_once: as in traffic.watched.
        """
        device = self.subject.device
        self.subject.lend_gradients()
        spent: dict[str, float] = {}
        with traffic.watched(device, at_once) as watch:
            began = meter.clock(device)
            for optimizer in self.built.optimizers:
                optimizer.step()
                ended = meter.clock(device)
                role = role_of(optimizer)
                spent[role] = spent.get(role, 0.0) + 1e3 * (ended - began)
                began = ended
        return Spent(spent, watch.ms(), {})

    def turn(self) -> Spent:
        """A step whose state stays from turn to turn; with many processes also a bare step."""
        if self.routing is None:
            self.build()
        spent = self.step()
        if self.subject.world.size == 1:
            return spent
        return spent._replace(bare=self.step(at_once=True).parts)

    def turn_alone(self) -> Spent:
        """The same if memory cannot hold all arms' states: creates and frees one each time."""
        spent = self.turn()
        self.free()
        return spent

    def facts(self) -> dict[str, Any]:
        """Facts that need no turns: state, temporary memory, FLOPs, matrices. Builds the arm."""
        self.build()
        counts = []
        self.subject.lend_gradients()
        for optimizer in self.built.optimizers:
            counts.append((role_of(optimizer), flops.count(optimizer.step)))
        held = []
        for _ in range(PEAKS):
            self.subject.lend_gradients()
            held.append(meter.held(self.subject.device, self.built.step))
        state = state_bytes(self.built.optimizers)
        found = {
            "state_bytes": state,
            "peak_temporary_bytes": max(one.peak for one in held[1:]),
            "peak_temporary_bytes_by_step": [one.peak for one in held],
            "left_bytes_by_step": [one.left for one in held],
            "temporary_grows": held[-1].peak > held[1].peak or held[-1].left > 0,
            **_flops(counts),
            "orthogonalization_flops": self._orthogonalization(counts),
            "products": sorted({one for _, count in counts for one in count.largest}, key=str),
            "matrices": self._matrices(),
            "iterations": self._iterations(),
            "traffic": self._traffic(),
        }
        self.free()
        return found

    def _traffic(self) -> dict[str, Any] | None:
        """The communication of a step, with the prediction of communication.py's model."""
        if self.subject.world.strategy == "none":
            return None
        self.subject.lend_gradients()
        counted = traffic.count(self.built.step)
        predicted = communication_facts.step(self.built.optimizers)
        groups = [g for optimizer in self.built.optimizers for g in optimizer.param_groups]
        sharding = next((g["sharding"] for g in groups if "sharding" in g), None)
        return {"collectives": counted, "predicted": predicted, "sharding": sharding}

    def _orthogonalization(self, counts: list[tuple[str, flops.Count]]) -> int | None:
        """FLOPs of this project's Muons, whose products all orthogonalize; None without any."""
        ours = [
            count.flops
            for optimizer, (_, count) in zip(self.built.optimizers, counts, strict=True)
            if any("orthogonalizer" in group for group in optimizer.param_groups)
        ]
        known = [own for own in ours if own is not None]
        return sum(known) if known and len(known) == len(ours) else None

    def _matrices(self) -> list[tuple[int, int]]:
        """The shapes of the matrices that a Muon of this arm orthogonalizes."""
        shapes = {
            (rows, columns)
            for row in self.built.table
            for _, rows, columns in row["matrices"] or []
        }
        return sorted(shapes)

    def _iterations(self) -> int | None:
        """Steps of the orthogonalizing iteration; None if unknown or if there is none."""
        for optimizer in self.built.optimizers:
            for group in optimizer.param_groups:
                if "orthogonalizer" in group:
                    asked = Orthogonalizer(**group["orthogonalizer"])
                    return None if asked.method == "exact" else asked.steps
                if "ns_steps" in group:  # torch's Muon, and most that follow it
                    return group["ns_steps"]
        return None


def role_of(optimizer: torch.optim.Optimizer) -> str:
    return optimizer.param_groups[0]["role"]


def _flops(counts: list[tuple[str, flops.Count]]) -> dict[str, Any]:
    """The sum of the counts of a step's parts; None if one of them is None."""
    by_role: dict[str, int | None] = {}
    for role, count in counts:
        before, own = by_role.get(role, 0), count.flops
        by_role[role] = None if before is None or own is None else before + own
    _, busiest = max(counts, key=lambda pair: pair[1].flops or 0)
    return {
        "flops": None if None in by_role.values() else sum(by_role.values()),
        "flops_by_role": by_role,
        "flops_missed": sorted({name for _, count in counts for name in count.missed}),
        "flops_dtype": str(busiest.dtype).removeprefix("torch.") if busiest.dtype else None,
    }

"""What takes turns: optimizers with states of their own, on one subject."""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from bench.communication import facts as communication_facts
from bench.measuring import flops, meter, traffic
from bench.settings.errors import UserError
from bench.settings.schema import Settings
from bench.stepping.subject import Subject
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

"""What tests/optimizers/test_step.py runs in each of several processes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.communication import facts
from bench.measuring import traffic
from optimizers import muon, step
from optimizers.muon import Muon
from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.orthogonalize.workspace import Workspace
from optimizers.sharding import exchange
from optimizers.sharding.plan import Work
from optimizers.sharding.regions import local
from optimizers.stacks import rounds
from optimizers.views import View
from tests.helpers import sharded_steps
from tests.helpers.sharded_steps import full, layouts, parameters, random, tensors

# How tensors lie (as sharded_steps.layouts has it), and what becomes of them.
STRATEGIES = [("plain", "distribute"), ("rows", "distribute"), ("rows", "gather")]


def placed(
    start: list[Tensor], name: str, sharding: str, views: list[View] | None = None
) -> tuple[list[nn.Parameter], Muon]:
    lies = {"plain": (None, None), **layouts(dist.get_world_size())}[name]
    params = parameters(start, *lies)
    return params, Muon([{"params": params, "views": views}], lr=0.05, sharding=sharding)


def one_after_another(
    held: step.Held,
    work: Work,
    group: dict,
    orthogonalizer: Orthogonalizer,
    workspace: Workspace,
) -> None:
    """The slow order: each batch wholly before the next."""
    for stacks in rounds(work.stacks, "cpu"):
        buffers = {k: state["momentum_buffer"] for k, state in held.states.items()}
        step.step_stacks(stacks, held, buffers, group, orthogonalizer, workspace, work.tables)
    for batch in work.batches:
        assert work.processes is not None
        for _ in step.step_batch(batch, held, group, orthogonalizer, workspace, work.processes):
            pass


@contextmanager
def slowly() -> Iterator[None]:
    """In the slow order, every collective waited for as soon as it has begun."""
    slow = mock.patch.object(muon, "step_held", one_after_another)
    with slow, traffic.watched("cpu", at_once=True):
        yield


@contextmanager
def late(seed: int) -> Iterator[None]:
    """This process is late with some of its stacks, each of the others with others."""
    polar, dice = step.polar, torch.Generator().manual_seed(seed + dist.get_rank())

    def lately(*args) -> Tensor:
        time.sleep(0.02 * (torch.rand((), generator=dice).item() < 0.2))
        return polar(*args)

    with mock.patch.object(step, "polar", lately):
        yield


def overlapped_steps_are_those_of_one_after_another(size: int) -> None:
    """To the last bit, parameters and momentum, whoever is late; in some batches there are
    processes that have nothing to orthogonalize."""
    start, views = tensors()
    start = [t.float() for t in start]
    for name, sharding in STRATEGIES:
        found = []
        for around in (slowly(), late(seed=0), late(seed=size)):
            params, optimizer = placed(start, name, sharding, views["split"])
            with around:
                sharded_steps.step(optimizer, range(3))
            buffers = [optimizer.state[p]["momentum_buffer"] for p in params]
            found.append([*map(full, params), *map(local, buffers)])
        plans = [work for kept in optimizer._plans.values() for _, work in kept]
        idle: list = [None] * size
        batches = [batch for work in plans for batch in work.batches]
        dist.all_gather_object(idle, any(not batch.stacks for batch in batches))
        assert any(idle) == (sharding == "distribute")
        for other in found[1:]:
            for i, (a, b) in enumerate(zip(found[0], other, strict=True)):
                assert torch.equal(a, b), (name, sharding, i)


@contextmanager
def listening() -> Iterator[list[str]]:
    """What happens, in its order. >: a collective begins; <: some are waited for; *: a stack is
    orthogonalized."""
    heard: list[str] = []
    places = [(dist, name, ">") for name in ("all_to_all_single", exchange.ALL_GATHER, "broadcast")]
    saved = [(o, name, getattr(o, name)) for o, name, _ in places]
    saved += [(step, "polar", step.polar), (exchange, "wait", exchange.wait)]

    def noted(sign: str, function):
        def call(*args, **kwargs):
            if sign != "<" or args[0].works:
                heard.append(sign)
            return function(*args, **kwargs)

        return call

    signs = [*(sign for *_, sign in places), "*", "<"]
    for (owner, name, function), sign in zip(saved, signs, strict=True):
        setattr(owner, name, noted(sign, function))
    try:
        yield heard
    finally:
        for owner, name, function in saved:
            setattr(owner, name, function)


def a_batch_is_orthogonalized_while_its_neighbours_travel(size: int) -> None:
    """Of three batches, in each of which every process has a matrix, and a vector that is not cut:
    the second arrives and the first leaves while the other is orthogonalized."""
    shapes = [(8, 12), (4, 24), (16, 6)]
    start = [random(*shape, seed=i) for i, shape in enumerate(shapes * size)]
    vector = {"plain": random(5, seed=99), "rows": random(1, seed=99)}
    wanted = {
        # begins to arrive; the vector; turn by turn: arrives, is there, has left, leaves
        ("rows", "distribute"): "> * ><*> ><*<> <*<> <",
        ("rows", "gather"): "> * ><* ><* <*",
        ("plain", "distribute"): "* *> *<> *<> <",
    }
    for (name, sharding), order in wanted.items():
        _, optimizer = placed([*start, vector[name]], name, sharding)
        for turn in range(2):
            with listening() as heard:
                sharded_steps.step(optimizer, range(turn, turn + 1))
        own = order.replace(" ", "")
        if name == "rows" and dist.get_rank():  # the vector is the first process's
            own = own.replace("*", "", 1)
        assert "".join(heard) == own, (name, sharding, "".join(heard), own)


def calls_and_bytes_are_those_of_the_plain_model(size: int) -> None:
    """Of views of one shape, of which several batches are made, and of one matrix alone."""
    for shapes in ([(12, 8)] * 7, [(12, 8)] * 4 * size + [(5, 40)], [(12, 8)]):
        start = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
        for name, sharding in STRATEGIES:
            _, optimizer = placed(start, name, sharding)
            sharded_steps.step(optimizer, range(1))
            moved = traffic.count(optimizer.step)
            assert moved and moved == facts.step([optimizer]), (shapes, name, sharding, moved)
            if len(start) > 4 * size:  # several batches are possible
                assert sum(kind["calls"] for kind in moved.values()) >= 3


def main(rank: int, size: int, meeting_place: Path) -> None:
    checks = [
        overlapped_steps_are_those_of_one_after_another,
        a_batch_is_orthogonalized_while_its_neighbours_travel,
        calls_and_bytes_are_those_of_the_plain_model,
    ]
    sharded_steps.together(checks, rank, size, meeting_place)

"""One step of a group of parameters, following its plan (sharding/plan.py)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from optimizers.checks import called
from optimizers.formula import accumulate_into, apply, polar
from optimizers.hyperball import step_on_spheres
from optimizers.moves import Table, gather, scatter
from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.orthogonalize.workspace import Workspace
from optimizers.quantized import Momenta
from optimizers.second_moment import normalized
from optimizers.sharding.batches import Batch
from optimizers.sharding.exchange import deliver, delivered, fetch, fetched, own
from optimizers.sharding.plan import Work
from optimizers.sharding.regions import is_dtensor, local
from optimizers.stacks import Stack, rounds
from optimizers.views import readable, reordered, strips

APART = ("neuron_moment", "momentum_scale")  # states that do not have their parameter's shape


class Held(NamedTuple):
    """By position in the group, the tensors on this process, each as its views can read it.

    copies: for tensors whose memory layout needs a copy, the copy, after the tensor that it is
    written back to.
    """

    params: dict[int, Tensor]
    grads: dict[int, Tensor]
    states: dict[int, dict[str, Tensor]]
    copies: list[tuple[Tensor, Tensor]]


def hold(group: dict[str, Any], work: Work, states: dict[int, dict[str, Tensor]]) -> Held:
    """states: the local tensors of the active parameters' states. Raises ValueError for a sparse
    gradient."""
    held = Held({}, {}, {}, [])
    for k, layout in work.layouts.items():
        param = local(group["params"][k])
        held.params[k] = reordered(param, layout) if k in work.odd else param
        if k in work.odd and k in work.active:
            held.copies.append((param, held.params[k]))
    for k, state in states.items():
        grad = local(gradient(group, k))
        if k not in held.params:  # without elements on this process
            continue
        strides, layout = held.params[k].stride(), work.layouts[k]
        if grad.stride() != strides and not readable(grad, layout):
            grad = reordered(grad, layout)
        for name, value in state.items():
            like = name in APART or value.stride() == strides
            if not like and not readable(value, layout):
                state[name] = reordered(value, layout)
                held.copies.append((value, state[name]))
        held.grads[k], held.states[k] = grad, state
    return held


def gradient(group: dict[str, Any], member: int) -> Tensor:
    """The gradient with the parameter's placements, which backward does not guarantee."""
    p: Tensor = group["params"][member]
    assert p.grad is not None
    if p.grad.layout is not torch.strided:
        raise ValueError(
            f"optimizer params: the gradient of {called(group, member)} is sparse, which Muon "
            "does not take"
        )
    if is_dtensor(p):
        assert is_dtensor(p.grad)
        if p.grad.placements != p.placements:
            return p.grad.redistribute(placements=p.placements)
    return p.grad


def step_held(
    held: Held,
    work: Work,
    group: dict[str, Any],
    orthogonalizer: Orthogonalizer,
    workspace: Workspace,
) -> None:
    """Step the matrices that lie whole on this process, and those that travel batch by batch.

    The first batch arrives while the local matrices are stepped. Each other batch arrives while the
    batch before it is orthogonalized, and leaves while the batch after it is.
    """
    batches = []
    for batch in work.batches:
        assert work.processes is not None
        step = step_batch(batch, held, group, orthogonalizer, workspace, work.processes)
        batches.append(step)
    for first in batches[:1]:
        next(first)
    turns = rounds(work.stacks, workspace.device.type)
    momenta = Momenta(held.states, turns, group["steps"])
    for number, stacks in enumerate(turns):
        buffers = momenta.opened(stacks)
        step_stacks(stacks, held, buffers, group, orthogonalizer, workspace, work.tables)
        momenta.close(number)
    for turn in range(1, len(batches) + 2):
        # One batch sets out, the one before it is orthogonalized, and the one before that is
        # applied. Its memory is then free when the orthogonalized one leaves.
        for number in (turn, turn - 1, turn - 2, turn - 1):
            if 0 <= number < len(batches):
                next(batches[number], None)


def step_stacks(
    stacks: list[Stack],
    held: Held,
    buffers: dict[int, Tensor],
    group: dict[str, Any],
    orthogonalizer: Orthogonalizer,
    workspace: Workspace,
    tables: dict[Any, Table],
) -> None:
    """Step matrices whole on this process; a workspace that keeps memory takes one stack.

    buffers: the momentum of the tensors that the stacks read, in floating point.
    """
    dtype = orthogonalizer.input_dtype(workspace.device.type)
    Xs = [workspace.empty("X", stack.shape, dtype) for stack in stacks]
    gather(Xs, stacks, {k: held.grads[k] for k in buffers}, buffers, group, tables)
    for i, stack in enumerate(stacks):
        Xs[i] = polar(Xs[i], group, orthogonalizer, workspace)
        if group["second_moment"] != "none":
            kind, beta2 = group["second_moment"], group["beta2"]
            Xs[i] = normalized(Xs[i], stack, held.states, kind, beta2)
    if group["keep_norm"]:
        for X, stack in zip(Xs, stacks, strict=True):
            step_on_spheres(X, stack, held.params, group)
        return
    scatter(Xs, stacks, held.params, group, tables)


def step_batch(
    batch: Batch,
    held: Held,
    group: dict[str, Any],
    orthogonalizer: Orthogonalizer,
    workspace: Workspace,
    processes: dist.ProcessGroup,
) -> Iterator[None]:
    """The same for matrices that lie on several processes: directions and updates travel.

    It has four parts: set out, orthogonalize, leave, apply. Between the second and the third it
    owns the workspace.
    """
    dtype = orthogonalizer.input_dtype(workspace.device.type)
    params = [held.params[member] for member in batch.members]
    shards = {t: torch.zeros_like(param, dtype=dtype) for t, param in enumerate(params)}
    for t, member in enumerate(batch.members):
        if member in held.states:
            buffer = held.states[member]["momentum_buffer"]
            accumulate_into(shards[t], buffer, held.grads[member], group)
    flight = fetch(batch, shards, processes)
    shards = {t: shards[t] for t in own(batch, dist.get_rank(processes))}
    yield
    wholes = fetched(batch, flight, shards, dtype, processes, workspace)
    del flight  # frees the tensors that it keeps
    for stack in batch.stacks:
        X = workspace.empty("X", stack.shape, dtype)
        for move in stack.moves:
            source = strips(wholes[move.segment.member], move.view, move.segment)
            stack.part(X, move).copy_(source)
        X = polar(X, group, orthogonalizer, workspace)
        for move in stack.moves:
            target = strips(wholes[move.segment.member], move.view, move.segment)
            target.copy_(stack.part(X, move))
    yield
    flight = deliver(batch, wholes, shards, dtype, processes, workspace)
    del wholes
    yield
    shards |= delivered(batch, flight, params, processes)
    for lines in batch.lines:
        target = lines.of(params[lines.position])
        apply(target, lines.of(shards[lines.position]), lines.scale, group)

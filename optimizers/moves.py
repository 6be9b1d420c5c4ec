"""Moves between tensors and stacks: gathers directions and applies updates.

It works strip by strip or, on a GPU, on all strips of a round of stacks in one launch of the
kernels in kernels/moves.py. Both compute Muon's formula (formula.py); a kernel computes in fp32
throughout.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optimizers import kernels
from optimizers.formula import accumulate_into, apply
from optimizers.stacks import Stack
from optimizers.views import strips

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# On a CPU the operators run only in Triton's interpreter, for tests.
DEVICES = ("cuda", "cpu")
Tensors = dict[int, Tensor]  # by position in the group


class Table(NamedTuple):
    """How the kernels find the strips of a round.

    made_for: strides and dtypes of the tensors; fields: one row per move, with the columns of
    kernels/moves.py, but with addresses as offsets in bytes from the start of its tensors and its
    stack; owners: which tensors and stack those are; tiles, scales: on the device.
    """

    made_for: tuple
    fields: Tensor
    owners: Tensor
    tiles: Tensor
    scales: Tensor


def gather(
    Xs: list[Tensor],
    stacks: list[Stack],
    grads: Tensors,
    buffers: Tensors,
    group: dict[str, Any],
    tables: dict[Any, Table],
) -> None:
    """Add the gradients to the momentum; write the step's directions to the stacks.

    tables: the tables of all rounds of the group, kept from step to step.
    """
    if _one_launch(Xs, grads, buffers, group):
        table = _table("gather", Xs, stacks, grads, buffers, tables)
        rule = group["momentum"], group["momentum_form"] == "classical", group["nesterov"]
        gather_strips(Xs, list(grads.values()), list(buffers.values()), *table[1:4], *rule)
        return
    for X, stack in zip(Xs, stacks, strict=True):
        for move in stack.moves:
            buffer = strips(buffers[move.segment.member], move.view, move.segment)
            grad = strips(grads[move.segment.member], move.view, move.segment)
            accumulate_into(stack.part(X, move), buffer, grad, group)


def scatter(
    Us: list[Tensor],
    stacks: list[Stack],
    params: Tensors,
    group: dict[str, Any],
    tables: dict[Any, Table],
) -> None:
    """Apply the stacks' updates to the parameters."""
    if _one_launch(Us, params, params, group):
        table = _table("scatter", Us, stacks, params, params, tables)
        rule = group["lr"], group["lr"] * group["weight_decay"], group["cautious"]
        apply_strips(Us, list(params.values()), *table[1:], *rule)
        return
    for U, stack in zip(Us, stacks, strict=True):
        for move in stack.moves:
            target = strips(params[move.segment.member], move.view, move.segment)
            apply(target, stack.part(U, move), move.scale, group)


def _one_launch(Xs: list[Tensor], first: Tensors, second: Tensors, group: dict[str, Any]) -> bool:
    """Whether a kernel can read them: all on one GPU, each kind of one dtype that the kernel knows,
    and rates that are numbers, since reading a tensor's value would wait for the device."""
    if not Xs[0].is_cuda or isinstance(group["lr"], Tensor) or not kernels.installed():
        return False
    kinds = Xs, [*first.values()], [*second.values()]
    dtypes = [{t.dtype for t in kind} for kind in kinds]
    known = all(len(found) == 1 and found <= set(KERNEL_DTYPES) for found in dtypes)
    return known and all(t.device == Xs[0].device for kind in kinds for t in kind)


def _table(
    kind: str,
    Xs: list[Tensor],
    stacks: list[Stack],
    first: Tensors,
    second: Tensors,
    tables: dict[Any, Table],
) -> Table:
    made_for = tuple((t.stride(), t.dtype) for t in (*Xs, *first.values(), *second.values()))
    key = kind, id(stacks[0])
    known = tables.get(key)
    if known is None or known.made_for != made_for:
        tables[key] = known = Table(made_for, *_built(Xs, stacks, first, second))
    return known


def _built(
    Xs: list[Tensor], stacks: list[Stack], first: Tensors, second: Tensors
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    number = {member: i for i, member in enumerate(first)}
    moves = [(i, stack, move) for i, stack in enumerate(stacks) for move in stack.moves]
    fields, owners, tiles = [], [], []
    for i, (round_, stack, move) in enumerate(moves):
        member = move.segment.member
        wholes = first[member], second[member], Xs[round_]
        parts = [strips(t, move.view, move.segment) for t in wholes[:2]]
        parts.append(stack.part(Xs[round_], move))
        if parts[0].stride(-1) > parts[0].stride(-2) or parts[0].shape[-1] == 1:
            parts = [part.mT for part in parts]  # follow the memory order of what is read in fp32
        starts = [
            (part.storage_offset() - t.storage_offset()) * t.element_size()
            for part, t in zip(parts, wholes, strict=True)
        ]
        count, rows, columns = parts[0].shape
        fields.append([*starts, *(s for part in parts for s in part.stride()), rows, columns])
        owners.append([number[member], number[member], round_])
        tiles += [
            (i, strip, row, column)
            for strip in range(count)
            for row in range(0, rows, kernels.ROWS)
            for column in range(0, columns, kernels.COLUMNS)
        ]
    device, scales = Xs[0].device, [move.scale for _, _, move in moves]
    return (
        torch.tensor(fields),
        torch.tensor(owners),
        torch.tensor(tiles, dtype=torch.int32, device=device),
        torch.tensor(scales, dtype=torch.float32, device=device),
    )


@torch.library.custom_op("muon::gather", mutates_args=("Xs", "buffers"), device_types=DEVICES)
def gather_strips(
    Xs: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    fields: Tensor,
    owners: Tensor,
    tiles: Tensor,
    momentum: float,
    classical: bool,
    nesterov: bool,
) -> None:
    from optimizers.kernels.moves import launch_gather

    table = _addressed(fields, owners, (grads, buffers, Xs), tiles.device)
    dtypes = grads[0].dtype, buffers[0].dtype, Xs[0].dtype
    launch_gather(table, tiles, dtypes, momentum, classical, nesterov)


@torch.library.custom_op("muon::apply", mutates_args=("params",), device_types=DEVICES)
def apply_strips(
    Us: Sequence[Tensor],
    params: Sequence[Tensor],
    fields: Tensor,
    owners: Tensor,
    tiles: Tensor,
    scales: Tensor,
    lr: float,
    decay: float,
    cautious: bool,
) -> None:
    from optimizers.kernels.moves import launch_apply

    table = _addressed(fields, owners, (params, params, Us), tiles.device)
    launch_apply(table, tiles, scales, (params[0].dtype, Us[0].dtype), lr, decay, cautious)


@gather_strips.register_fake
def _(Xs, grads, buffers, fields, owners, tiles, momentum, classical, nesterov) -> None:
    pass


@apply_strips.register_fake
def _(Us, params, fields, owners, tiles, scales, lr, decay, cautious) -> None:
    pass


def _addressed(
    fields: Tensor, owners: Tensor, kinds: Sequence[Sequence[Tensor]], device: torch.device
) -> Tensor:
    """The table on the device, offsets turned into addresses: gradients are new each step."""
    table = fields.clone()
    for column, tensors in enumerate(kinds):
        table[:, column] += torch.tensor([t.data_ptr() for t in tensors])[owners[:, column]]
    if device.type != "cuda":
        return table
    return table.pin_memory().to(device, non_blocking=True)

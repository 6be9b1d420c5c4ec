"""Running mean squares of orthogonalized updates, the divisors of NorMuon and AdaMuon."""

import torch
from torch import Tensor

from optimizers.stacks import Move, Stack
from optimizers.views import View, block_shapes, strips

KINDS = ("none", "neuron", "element")
EPSILON = 1e-8  # as in both papers


def normalized(
    U_bnm: Tensor, stack: Stack, states: dict[int, dict[str, Tensor]], kind: str, beta2: float
) -> Tensor:
    """Each update divided by the root of its second moment, its Frobenius norm kept.

    neuron: v <- beta2 v + (1 - beta2) mean over fan-in of U^2, one number a row (NorMuon,
    arXiv 2510.05491); element: v <- beta2 v + (1 - beta2) U^2 (AdaMuon, arXiv 2507.11005). No
    bias correction: at equal norm it would change nothing.
    """
    U = U_bnm.float()
    size = torch.linalg.vector_norm(U, dim=(-2, -1), keepdim=True)
    squares = U.square()
    if kind == "neuron":
        turned = stack.moves[0].transposed  # the same for all moves of a stack, see `plan`
        squares = squares.mean(-2 if turned else -1, keepdim=True)
    for move in stack.moves:
        moment = _moment(states, move, kind)
        part = _rows(squares, move) if kind == "neuron" else stack.part(squares, move)
        moment.lerp_(part.to(moment.dtype), 1 - beta2)
        part.copy_(moment)
    U = U.div_(squares.sqrt_().add_(EPSILON))
    now = torch.linalg.vector_norm(U, dim=(-2, -1), keepdim=True)
    return U.mul_(size / now.clamp_min(torch.finfo(now.dtype).tiny))


def _moment(states: dict[int, dict[str, Tensor]], move: Move, kind: str) -> Tensor:
    """The part of a parameter's second moment that belongs to a move."""
    state, segment = states[move.segment.member], move.segment
    if kind == "element":
        return strips(state["element_moment"], move.view, segment)
    count = segment.count * move.rows
    return state["neuron_moment"].narrow(0, move.neuron, count).view(segment.count, move.rows, 1)


def _rows(squares: Tensor, move: Move) -> Tensor:
    """(count, rows, 1): the move's rows of the stack's mean squares."""
    part = squares[move.slot : move.slot + move.segment.count]
    part = part.mT if move.transposed else part
    offset = 0 if move.view["axis"] else move.segment.offset
    return part.narrow(1, offset, move.rows)


def neurons(views: list[View], params: list[Tensor], member: int) -> int:
    """Number of rows in all blocks that include a part of a parameter."""
    total = 0
    for view in views:
        if member not in view["members"]:
            continue
        shapes = block_shapes(view, params)
        for block, (rows, _) in zip(view["blocks"], shapes, strict=True):
            pieces = [stop - start for owner, start, stop in block if owner == member]
            total += rows * len(pieces) if view["axis"] else sum(pieces)
    return total

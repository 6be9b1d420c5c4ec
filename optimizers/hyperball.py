"""Steps that keep each matrix's Frobenius norm (hyperball; with Muon's update: MuonH).

    W <- R Norm(W - lr R Norm(U)),  Norm(X) = X / |X|,  R = |W|

Source: Wen, Dang, Lyu, Ma, Liang, "From Weight Decay to Hyperball Optimization", 2025-12-15,
whenwen.github.io/wd_blog/public/hyperball-part-1.html. There R is the norm at initialization. No
step changes the norm, so R is read from the weights and takes no state; in bf16 the rounding of the
weights themselves moves it.
"""

from typing import Any

import torch
from torch import Tensor

from optimizers.stacks import Stack
from optimizers.views import strips


def step_on_spheres(
    U_bnm: Tensor, stack: Stack, params: dict[int, Tensor], group: dict[str, Any]
) -> None:
    """Apply the updates to the parameters; lr is the step's length relative to the weights' norm.

    With c the cosine between W and U, |W - lr R Norm(U)|^2 = R^2 (1 - 2 lr c + lr^2): one pass
    reads the weights, the next one writes them.
    """
    wide = torch.promote_types(torch.float32, params[stack.moves[0].segment.member].dtype)
    U = U_bnm.to(wide)
    squares, products = U.new_zeros(len(U)), U.new_zeros(len(U))
    for move in stack.moves:
        W, slots = strips(params[move.segment.member], move.view, move.segment), move.slots
        squares[slots] += torch.linalg.vector_norm(W, dim=(-2, -1), dtype=wide).square()
        products[slots] += (stack.part(U, move) * W).sum((-2, -1))
    tiny = torch.finfo(wide).tiny
    R, length = squares.sqrt(), torch.linalg.vector_norm(U, dim=(-2, -1))
    lr, moves = group["lr"], (length > 0).to(wide)  # an update of zeros moves nothing
    c = products / (R * length).clamp_min(tiny)
    shrink = (1 - 2 * lr * c + lr**2 * moves).clamp_min(tiny).rsqrt()
    along = shrink * lr * R / length.clamp_min(tiny)
    for move in stack.moves:
        W, slots = strips(params[move.segment.member], move.view, move.segment), move.slots
        step = stack.part(U, move) * along[slots, None, None]
        W.copy_(W * shrink[slots, None, None] - step)

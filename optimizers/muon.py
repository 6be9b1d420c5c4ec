"""Muon: momentum, orthogonalized. A thin class on views.py and orthogonalize.py."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optimizers.orthogonalize import Orthogonalizer
from optimizers.views import Segment, View, block_shapes, segments, strips, whole

# Elements of one stack of matrices. On a CPU a stack should stay in cache and yet give each core
# a matrix; on a GPU it should fill the device.
STACK_ELEMENTS = {"cpu": 2**22, "cuda": 2**27}

SCALES = ("original", "match_rms_adamw", "spectral", "none")


def update_scale(rule: str, rows: int, columns: int) -> float:
    """The factor on msign for a block with fan-out `rows` and fan-in `columns`.

    original: sqrt(max(1, out/in)) (Keller Jordan); match_rms_adamw: 0.2 sqrt(max(out, in)), which
    gives an update RMS of 0.2 as AdamW's (Moonlight, arXiv 2502.16982); spectral: sqrt(out/in)
    (Scion, arXiv 2502.07529); none: 1.
    """
    if rule == "original":
        return max(1.0, rows / columns) ** 0.5
    if rule == "match_rms_adamw":
        return 0.2 * max(rows, columns) ** 0.5
    if rule == "spectral":
        return (rows / columns) ** 0.5
    if rule == "none":
        return 1.0
    raise ValueError(f"optimizer scale={rule}: must be one of {', '.join(SCALES)}")


class Move(NamedTuple):
    """One copy between a parameter's strips and a run of slots of a stack."""

    view: View
    segment: Segment
    slot: int
    transposed: bool
    scale: float


class Stack(NamedTuple):
    """Matrices of one shape that are orthogonalized together: (count, n, m) with n <= m."""

    shape: tuple[int, int, int]
    moves: list[Move]


def plan(params: list[Tensor], views: list[View], rule: str) -> list[Stack]:
    """Sort all blocks by shape and cut them into stacks."""
    buckets: dict[tuple[int, int], list[Move]] = {}
    filled: dict[tuple[int, int], int] = {}
    for view in views:
        first_slot: dict[int, int] = {}
        shapes = block_shapes(view, params)
        for number, (rows, columns) in enumerate(shapes):
            key = (min(rows, columns), max(rows, columns))
            first_slot[number] = filled.get(key, 0)
            filled[key] = first_slot[number] + 1
        for segment in segments(view):
            rows, columns = shapes[segment.block]
            key = (min(rows, columns), max(rows, columns))
            scale = update_scale(rule, rows, columns)
            move = Move(view, segment, first_slot[segment.block], rows > columns, scale)
            buckets.setdefault(key, []).append(move)
    limit = STACK_ELEMENTS.get(params[0].device.type, STACK_ELEMENTS["cpu"])
    stacks = []
    for (n, m), moves in buckets.items():
        stacks += _cut(moves, filled[n, m], n, m, max(1, limit // (n * m)))
    return stacks


def _cut(moves: list[Move], slots: int, n: int, m: int, most: int) -> list[Stack]:
    """Stacks of at most `most` slots, as equal as can be; a run of strips may be cut in two."""
    pieces = -(-slots // most)
    edges = [slots * i // pieces for i in range(pieces + 1)]
    stacks = []
    for low, high in pairwise(edges):
        inside = []
        for move in moves:
            start, stop = max(low, move.slot), min(high, move.slot + move.segment.count)
            if start < stop:
                skipped = start - move.slot
                segment = move.segment._replace(
                    start=move.segment.start + skipped * move.segment.size, count=stop - start
                )
                inside.append(move._replace(segment=segment, slot=start - low))
        stacks.append(Stack((high - low, n, m), inside))
    return stacks


def slots(X_bnm: Tensor, move: Move) -> Tensor:
    """The part of a stack that a move reads or writes, in the orientation of its strips."""
    part = X_bnm[move.slot : move.slot + move.segment.count]
    part = part.mT if move.transposed else part
    axis = 1 + move.view["axis"]
    return part.narrow(axis, move.segment.offset, move.segment.size)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are replaced by their polar factor before each step.

        M <- momentum M + (1 - momentum) G        (EMA, as torch.optim.Muon)
        U <- msign(momentum M + (1 - momentum) G) (nesterov; otherwise msign(M))
        W <- (1 - lr weight_decay) W - lr scale U

    Source: https://kellerjordan.github.io/posts/muon/; scales: `update_scale`.

    params: tensors, named tensors or param groups. A group may carry `views` (see views.py) that
    say how its tensors are read as matrices; without them each is one matrix (vectors n x 1,
    kernels out x rest). State: one buffer a parameter, in its dtype. `p.grad` is only read.
    A parameter without a gradient counts as one with gradient zero if any in its group has one.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        scale: str = "match_rms_adamw",
        orthogonalizer: dict[str, Any] | None = None,
    ) -> None:
        if lr < 0:
            raise ValueError(f"optimizer lr={lr}: must not be negative")
        if not 0 <= momentum < 1:
            raise ValueError(f"optimizer momentum={momentum}: must be in [0, 1)")
        update_scale(scale, 1, 1)
        Orthogonalizer(**(orthogonalizer or {}))
        defaults = dict(
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            scale=scale,
            orthogonalizer=dict(orthogonalizer or {}),
            views=None,
        )
        self._plans: dict[int, list[Stack]] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["views"] is None:
            layouts = {1: "vector", 0: "vector", 2: "matrix"}
            group["views"] = [
                whole(i, p, layouts.get(p.ndim, "kernel")) for i, p in enumerate(group["params"])
            ]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plans = {}

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            params = group["params"]
            if any(p.grad is not None for p in params):
                if number not in self._plans:
                    self._plans[number] = plan(params, group["views"], group["scale"])
                self._step_group(group, self._plans[number])
        return loss

    def _step_group(self, group: dict[str, Any], stacks: list[Stack]) -> None:
        params, momentum = group["params"], group["momentum"]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        buffers = [self._buffer(p) for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        orthogonalizer = Orthogonalizer(**group["orthogonalizer"])
        device = params[0].device
        dtype = orthogonalizer.input_dtype(device.type)
        for stack in stacks:
            X = torch.empty(stack.shape, dtype=dtype, device=device)
            for move in stack.moves:
                segment = move.segment
                direction = strips(buffers[segment.member], move.view, segment)
                target = slots(X, move)
                if group["nesterov"]:
                    grad = strips(grads[segment.member], move.view, segment)
                    _lerp_into(target, grad, direction, momentum)
                else:
                    target.copy_(direction)
            X = orthogonalizer(X, orthogonalizer.iteration_dtype(device.type))
            for move in stack.moves:
                target = strips(params[move.segment.member], move.view, move.segment)
                target.add_(slots(X, move), alpha=-group["lr"] * move.scale)

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]


def _lerp_into(target: Tensor, start: Tensor, end: Tensor, weight: float) -> None:
    """target <- start + weight (end - start), in one pass where the dtypes allow it."""
    if target.dtype == start.dtype:
        torch.lerp(start, end, weight, out=target)
    else:
        target.copy_(torch.lerp(start, end, weight))

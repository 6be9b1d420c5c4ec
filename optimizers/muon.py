"""Muon: momentum, orthogonalized. A thin class on stacks.py and orthogonalize.py."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from optimizers.checks import MOMENTUM_DTYPES, check
from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.orthogonalize.workspace import Workspace
from optimizers.second_moment import neurons, normalized
from optimizers.sharding.exchange import deliver, fetch
from optimizers.sharding.plan import Work, count_processes, work
from optimizers.sharding.regions import is_dtensor, local, outline
from optimizers.stacks import shards
from optimizers.views import strips, whole


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are replaced by their polar factor before each step.

        M <- momentum M + (1 - momentum) G        (EMA, as torch.optim.Muon)
        U <- msign(momentum M + (1 - momentum) G) (nesterov; otherwise msign(M))
        W <- (1 - lr weight_decay) W - lr scale U

    Source: https://kellerjordan.github.io/posts/muon/; scales: `stacks.update_scale`.

    params: tensors, named tensors or param groups. A group may carry `views` (see views.py) that
    say how its tensors are read as matrices; without them each is one matrix (vectors n x 1,
    kernels out x rest). `p.grad` is only read. A parameter without a gradient counts as one with
    gradient zero if any in its group has one. lr may be a tensor, which torch.compile needs.

    momentum_form: ema, or classical (M <- momentum M + G, as Keller Jordan's), which differs by
        a factor that msign removes.
    momentum_dtype: fp32 or bf16; None: the parameter's.
    second_moment, beta2: neuron, the running mean square of each row of U divides it (NorMuon,
        arXiv 2510.05491); element, that of each entry (AdaMuon, arXiv 2507.11005). Either keeps
        U's norm.
    sign: orthogonalize the signs of the momentum, as AdaMuon does.
    cautious: decay only weights that the update shrinks too (arXiv 2510.12402).
    shards, period: orthogonalize each matrix in `shards` pieces of its rows, and whole at every
        `period`-th step only, the first among them (MuonBP, arXiv 2510.16981); scale follows.
    sharding: replicate, distribute, gather, or blockwise (which is NOT exact), for parameters that
        several processes hold: plain tensors, equal on all (replicate, distribute), or DTensors of
        one mesh (the other three). See sharding.py. With one process all are the same.

    State: `momentum_buffer`, one value a weight; `neuron_moment`, one fp32 number a row of a
    block; `element_moment`, one value a weight in the parameter's dtype. A DTensor where the
    parameter is one.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        scale: str = "match_rms_adamw",
        orthogonalizer: dict[str, Any] | None = None,
        momentum_form: str = "ema",
        momentum_dtype: str | None = None,
        second_moment: str = "none",
        beta2: float = 0.95,
        sign: bool = False,
        cautious: bool = False,
        shards: int = 1,
        period: int = 1,
        sharding: str = "replicate",
    ) -> None:
        defaults = dict(
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            scale=scale,
            orthogonalizer=dict(orthogonalizer or {}),
            momentum_form=momentum_form,
            momentum_dtype=momentum_dtype,
            second_moment=second_moment,
            beta2=beta2,
            sign=sign,
            cautious=cautious,
            shards=shards,
            period=period,
            sharding=sharding,
            steps=0,
            views=None,
        )
        self._plans: dict[tuple[int, bool], Work] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["views"] is None:
            layouts = {1: "vector", 0: "vector", 2: "matrix"}
            group["views"] = [
                whole(i, outline(p), layouts.get(p.ndim, "kernel"))
                for i, p in enumerate(group["params"])
            ]
        try:
            check(group)
            if count_processes(group["params"]) > 1:  # refuse what cannot be before work starts
                self._plans[len(self.param_groups) - 1, False] = work(group, group["views"])
        except ValueError:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plans = {}
        for group in self.param_groups:  # saved before a setting was there
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which casts a state to its parameter's dtype; here each keeps its own.

        `sharding` stays: it is of these processes, not of those that saved.
        """
        ours = [group["sharding"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, sharding in zip(self.param_groups, ours, strict=True):
            group["sharding"] = sharding
        saved = [number for group in state_dict["param_groups"] for number in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for number, p in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[p][name] = value.to(p.device)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            if any(p.grad is not None for p in group["params"]):
                self._step_group(group, self._work(number, group))
        return loss

    def _work(self, number: int, group: dict[str, Any]) -> Work:
        """What this step does, planned at its first need."""
        in_shards = group["shards"] > 1 and group["steps"] % group["period"] > 0
        if group["shards"] > 1:
            group["steps"] += 1
        if (number, in_shards) not in self._plans:
            views = group["views"]
            if in_shards:
                views = [shards(view, group["params"], group["shards"]) for view in views]
            self._plans[number, in_shards] = work(group, views)
        return self._plans[number, in_shards]

    def _step_group(self, group: dict[str, Any], work: Work) -> None:
        params = [local(p) for p in group["params"]]
        grads = [local(gradient(p)) for p in group["params"]]
        states = [self._state(member, group) for member in range(len(params))]
        orthogonalizer = Orthogonalizer(**group["orthogonalizer"])
        workspace = Workspace(params[0].device)
        dtype = orthogonalizer.input_dtype(workspace.device.type)
        for stack in work.stacks:
            X = workspace.empty("X", stack.shape, dtype)
            for move in stack.moves:
                member, segment = move.segment.member, move.segment
                buffer = strips(states[member]["momentum_buffer"], move.view, segment)
                grad = strips(grads[member], move.view, segment)
                accumulate_into(stack.part(X, move), buffer, grad, group)
            X = polar(X, group, orthogonalizer, workspace)
            if group["second_moment"] != "none":
                X = normalized(X, stack, states, group["second_moment"], group["beta2"])
            for move in stack.moves:
                target = strips(params[move.segment.member], move.view, move.segment)
                apply(target, stack.part(X, move), move.scale, group)
        for batch in work.batches:  # the same, but directions and updates travel
            assert work.processes is not None
            parts = [torch.empty_like(params[member], dtype=dtype) for member in batch.members]
            for part, member in zip(parts, batch.members, strict=True):
                accumulate_into(part, states[member]["momentum_buffer"], grads[member], group)
            wholes = fetch(batch, parts, work.processes, workspace)
            for stack in batch.stacks:
                X = workspace.empty("X", stack.shape, dtype)
                for move in stack.moves:
                    source = strips(wholes[move.segment.member], move.view, move.segment)
                    stack.part(X, move).copy_(source)
                X = polar(X, group, orthogonalizer, workspace)
                for move in stack.moves:
                    target = strips(wholes[move.segment.member], move.view, move.segment)
                    target.copy_(stack.part(X, move))
            deliver(batch, wholes, parts, work.processes)
            for lines in batch.lines:
                target = lines.of(params[batch.members[lines.position]])
                apply(target, lines.of(parts[lines.position]), lines.scale, group)

    def _state(self, member: int, group: dict[str, Any]) -> dict[str, Tensor]:
        p = group["params"][member]
        state = self.state[p]
        if "momentum_buffer" not in state:
            dtype = MOMENTUM_DTYPES[group["momentum_dtype"]]
            state["momentum_buffer"] = torch.zeros_like(p, dtype=dtype)
            if group["second_moment"] == "element":
                state["element_moment"] = torch.zeros_like(p)
            if group["second_moment"] == "neuron":
                rows = neurons(group, member)
                state["neuron_moment"] = torch.zeros(rows, dtype=torch.float32, device=p.device)
        return {name: local(value) for name, value in state.items()}


def gradient(p: Tensor) -> Tensor:
    """Of the parameter's placements, which backward does not promise."""
    if p.grad is None:
        return torch.zeros_like(p)
    if is_dtensor(p):
        assert is_dtensor(p.grad)
        if p.grad.placements != p.placements:
            return p.grad.redistribute(placements=p.placements)
    return p.grad


def polar(
    X_bnm: Tensor, group: dict[str, Any], orthogonalizer: Orthogonalizer, workspace: Workspace
) -> Tensor:
    """The stack of directions orthogonalized; X is overwritten."""
    if group["sign"]:
        X_bnm.sign_()
    return orthogonalizer(X_bnm, orthogonalizer.iteration_dtype(X_bnm.device.type), workspace)


def accumulate_into(target: Tensor, buffer: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
    """Take the gradient into the momentum buffer; write the direction of the step to `target`.

    In the wider dtype of the two.
    """
    wide = torch.promote_types(buffer.dtype, grad.dtype)
    moment, grad = buffer.to(wide), grad.to(wide)  # themselves, where they have it
    momentum, start = group["momentum"], grad
    if group["momentum_form"] == "ema":
        moment.lerp_(grad, 1 - momentum)
    else:
        moment.mul_(momentum).add_(grad)
        start = grad / (1 - momentum) if group["nesterov"] else grad
    if moment is not buffer:
        buffer.copy_(moment)
    if not group["nesterov"]:
        target.copy_(moment)
    elif target.dtype == wide:
        torch.lerp(start, moment, momentum, out=target)
    else:
        target.copy_(torch.lerp(start, moment, momentum))


def apply(target: Tensor, update: Tensor, scale: float, group: dict[str, Any]) -> None:
    """target <- (1 - lr weight_decay) target - lr scale update, decay masked where cautious."""
    lr, decay = group["lr"], group["lr"] * group["weight_decay"]
    if group["cautious"]:
        target.sub_(target * (update * target >= 0) * decay)
    elif group["weight_decay"]:
        target.mul_(1 - decay)
    if isinstance(lr, Tensor):
        target.sub_(update * (lr * scale))
    else:
        target.add_(update, alpha=-lr * scale)

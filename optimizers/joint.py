"""Several optimizers as one, for training loops that accept only one."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor


class Joint(torch.optim.Optimizer):
    """Several optimizers, each with its own parameters, as one torch.optim.Optimizer.

    parts: a mapping from role (any name) to an optimizer of any class. Each group has its part's
    role under the key `role`; a group that is added later must name one.
    table: one row per parameter, as optimizers.routing shows it; only stored here.

    `param_groups` and `state` are the same dicts as those of the parts. A change here (to rates, a
    group removed, a state cleared) takes effect in the parts at their next step. A state dict is
    that of one optimizer over all groups; each part writes and reads its own share.
    Raises ValueError if two parts share a parameter, and for groups without a part.
    """

    def __init__(
        self, parts: Mapping[str, torch.optim.Optimizer], table: list[dict[str, Any]] | None = None
    ) -> None:
        self.parts: dict[str, torch.optim.Optimizer] = {}  # empty until the groups are added
        self.table = table or []
        for role, part in parts.items():
            for group in part.param_groups:
                group["role"] = role
        super().__init__([group for part in parts.values() for group in part.param_groups], {})
        self.defaults["lr"] = self.param_groups[0]["lr"]
        for part in parts.values():
            self.state.update(part.state)
        self.parts = dict(parts)
        self._share()

    def _share(self) -> None:
        """Give each part its groups, and give all parts the one state."""
        by_role: dict[str, list[dict[str, Any]]] = {role: [] for role in self.parts}
        for number, group in enumerate(self.param_groups):
            role = group.get("role")
            if role not in by_role:
                raise ValueError(
                    f"param_groups[{number}]: role={role}: must be one of {', '.join(by_role)}"
                )
            by_role[role].append(group)
        for role, part in self.parts.items():
            part.param_groups, part.state = by_role[role], self.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if not self.parts:
            super().add_param_group(param_group)
            return
        self._share()
        role = param_group.get("role")
        if role not in self.parts:
            raise ValueError(
                f"add_param_group: role={role}: must be one of {', '.join(self.parts)}"
            )
        try:
            self.parts[role].add_param_group(param_group)
            super().add_param_group(param_group)
        finally:
            self._share()  # also removes the refused group from its part

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._share()
        for part in self.parts.values():
            if part.param_groups:
                part.step()
        return loss

    def train(self) -> None:
        """Put the weights to train in place, in parts that evaluate others (Schedule-Free)."""
        self._switch("train")

    def eval(self) -> None:
        """Put the weights to evaluate in place, in parts that have them."""
        self._switch("eval")

    def _switch(self, mode: str) -> None:
        self._share()
        for part in self.parts.values():
            if hasattr(part, mode):
                getattr(part, mode)()

    # state dicts ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        saved = self._packed()
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, saved)
            saved = saved if changed is None else changed
        return saved

    def _packed(self) -> dict[str, Any]:
        self._share()
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        number = {id(p): i for i, p in enumerate(parameters)}
        state: dict[Any, Any] = {}
        groups = {}
        for part in self.parts.values():
            own = [p for group in part.param_groups for p in group["params"]]
            saved = self._alone(part, own)
            numbered = dict(
                zip(_numbers(saved["param_groups"]), [number[id(p)] for p in own], strict=True)
            )
            state |= {numbered.get(key, key): value for key, value in saved["state"].items()}
            for group, packed in zip(part.param_groups, saved["param_groups"], strict=True):
                params = [numbered[i] for i in packed["params"]]
                groups[id(group)] = packed | {"params": params}
        return {"state": state, "param_groups": [groups[id(g)] for g in self.param_groups]}

    def _alone(self, part: torch.optim.Optimizer, own: list[Tensor]) -> dict[str, Any]:
        """A part's own state dict, without the state of other parts' parameters."""
        mine = {id(p) for p in own}
        part.state = defaultdict(
            dict,
            {k: v for k, v in self.state.items() if id(k) in mine or not isinstance(k, Tensor)},
        )
        try:
            return part.state_dict()
        finally:
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError, and changes nothing, if the groups do not match this optimizer's."""
        state_dict = dict(state_dict)
        for prepare in self._optimizer_load_state_dict_pre_hooks.values():
            changed = prepare(self, state_dict)
            state_dict = state_dict if changed is None else changed
        self._share()
        saved = state_dict["param_groups"]
        if _outline(saved) != _outline(self.param_groups):
            raise ValueError(
                f"load_state_dict: the groups (and how many tensors) are {_outline(saved)}; "
                f"this optimizer's are {_outline(self.param_groups)}"
            )
        before = self._packed()
        try:
            self._take(state_dict)
        except Exception:  # other parts may have loaded theirs already
            self._take(before)
            raise
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _take(self, state_dict: dict[str, Any]) -> None:
        saved = state_dict["param_groups"]
        everyone = set(_numbers(saved))
        state: defaultdict[Any, Any] = defaultdict(dict)
        loaded = {}
        for role, part in self.parts.items():
            theirs = [group for group in saved if group["role"] == role]
            number = {key: i for i, key in enumerate(_numbers(theirs))}
            others = everyone - number.keys()
            share = {number.get(k, k): v for k, v in state_dict["state"].items() if k not in others}
            groups = [g | {"params": [number[key] for key in g["params"]]} for g in theirs]
            part.load_state_dict({"state": share, "param_groups": groups})
            state.update(part.state)
            loaded[role] = iter(part.param_groups)
        self.param_groups = [next(loaded[group["role"]]) for group in saved]
        self.state = state
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"parts": self.parts, "table": self.table}

    def __repr__(self) -> str:
        lines = []
        for group in self.param_groups:
            name = type(self.parts[group["role"]]).__name__
            decay = group.get("weight_decay", 0.0)
            lines.append(
                f"    {group['role']}: {name}, {len(group['params'])} tensors, "
                f"lr {group['lr']}, weight_decay {decay}\n"
            )
        return f"{type(self).__name__} (\n{''.join(lines)})"


def _outline(groups: list[dict[str, Any]]) -> str:
    return ", ".join(f"{group.get('role')} ({len(group['params'])})" for group in groups)


def _numbers(groups: list[dict[str, Any]]) -> list[Any]:
    return [number for group in groups for number in group["params"]]

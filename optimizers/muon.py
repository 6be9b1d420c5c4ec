"""Muon: orthogonalized momentum. A thin class on stacks.py and orthogonalize/."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from optimizers.buffers import needed
from optimizers.checks import check, check_orthogonalizer, check_state, check_views
from optimizers.loading import prepared, unpacked
from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.orthogonalize.workspace import Workspace
from optimizers.sharding.plan import Work, count_processes, work
from optimizers.sharding.regions import outline
from optimizers.stacks import shards
from optimizers.step import hold, step_held
from optimizers.views import View, only, whole

LAYOUTS = {0: "vector", 1: "vector", 2: "matrix"}  # of tensors without views, by dimensions
PLANS = 8  # plans kept per group: which tensors have gradients may vary


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are replaced by their polar factors before each step.

        M <- momentum M + (1 - momentum) G        (EMA, as torch.optim.Muon)
        U <- msign(momentum M + (1 - momentum) G) (nesterov; otherwise msign(M))
        W <- (1 - lr weight_decay) W - lr scale U

    Source: https://kellerjordan.github.io/posts/muon/; scales: `stacks.update_scale`.

    params: tensors, named tensors or param groups. A group may carry `views` (see views.py), which
    say how its tensors are read as matrices; without views each is one matrix (vectors n x 1,
    kernels out x rest). Views stay in the optimizer (`Muon.views`); they are not shown or saved.
    `p.grad` is only read. A parameter without a gradient stays as it is, and so does one with
    requires_grad=False, even if it still has a gradient: a gradient of zeros would cause a
    full-size step from the momentum. Views that join several tensors then join the others. lr may
    be a tensor, which torch.compile needs. All arguments but params and lr are keyword-only.

    momentum_form: ema, or classical (M <- momentum M + G, as Keller Jordan's), which differs by
        a factor that msign removes.
    momentum_dtype: fp32, bf16, or int8 (blocks of codes with a scale, see quantized.py); None: the
        parameter's.
    second_moment, beta2: neuron divides each row of U by its running root mean square (NorMuon,
        arXiv 2510.05491); element does so for each entry (AdaMuon, arXiv 2507.11005). Both keep
        U's norm.
    sign: orthogonalize the signs of the momentum, as AdaMuon does.
    cautious: decay only weights that the update shrinks too (arXiv 2510.12402).
    keep_norm: each matrix keeps its Frobenius norm, lr is a step's length relative to it, scale has
        no effect, and decay must be 0 (MuonH, see hyperball.py).
    shards, period: orthogonalize each matrix in `shards` pieces of its rows, and whole only at
        every `period`-th step, first at the first (MuonBP, arXiv 2510.16981); scale follows.
    sharding: replicate, distribute, gather, or blockwise (which is NOT exact), for parameters on
        several processes: plain tensors, equal on all processes (replicate, distribute), or
        DTensors of one mesh (the other three). See sharding/plan.py. One process: all the same.
    State: `momentum_buffer`, one value per weight; `momentum_scale`, one fp32 number for every 256
    8-bit values; `neuron_moment`, one fp32 number per row of a block; `element_moment`, one value
    per weight in the parameter's dtype. What has the parameter's shape is a DTensor if it is one.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
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
        keep_norm: bool = False,
        shards: int = 1,
        period: int = 1,
        sharding: str = "replicate",
    ) -> None:
        if orthogonalizer is not None:
            check_orthogonalizer(orthogonalizer)
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
            keep_norm=keep_norm,
            shards=shards,
            period=period,
            sharding=sharding,
            steps=0,
        )
        self._views: list[tuple[dict[str, Any], list[View], int]] = []
        self._plans: dict[tuple[int, frozenset[int] | None], list[tuple[tuple, Work]]] = {}
        self._ahead: dict[int, frozenset[int]] = {}  # by group: members stepped ahead of `step`
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; a group that is refused is removed again."""
        super().add_param_group(param_group)
        number, group = len(self.param_groups) - 1, self.param_groups[-1]
        try:
            if "views" in group:  # the caller's dict keeps its views
                group = self.param_groups[-1] = dict(group)
                self._take_views(group)
            check(group)
            group["orthogonalizer"] = dict(group["orthogonalizer"])
            if count_processes(group["params"]) > 1:  # refuse what is impossible before work starts
                self._work(number, group)
        except Exception:
            self.param_groups.pop()
            self._views = [entry for entry in self._views if entry[0] is not group]
            self._plans.pop((number, None), None)
            raise

    def views(self, group: dict[str, Any]) -> list[View]:
        """How the tensors of a param group are read as matrices: by the given views, and each
        tensor that they do not mention as one matrix."""
        given, spoken_of = [], 0
        for known, views, count in self._views:
            if known is group:
                given, spoken_of = views, count
        params = list(enumerate(group["params"]))
        if len(params) < spoken_of:
            raise ValueError(
                f"optimizer views: they are of {spoken_of} tensors, but the group has "
                f"{len(params)} now; give it new `views`"
            )
        rest = params[spoken_of:]
        return [*given, *(whole(i, outline(p), LAYOUTS.get(p.ndim, "kernel")) for i, p in rest)]

    def _take_views(self, group: dict[str, Any]) -> None:
        """Take the views out of the group, because torch saves, shows and compares groups."""
        views = group.pop("views")
        self._views = [entry for entry in self._views if entry[0] is not group]
        if views is not None:
            check_views(group, views)
            self._views.append((group, views, len(group["params"])))
        self._plans = {}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_views": self._views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        before = getattr(self, "param_groups", [])
        super().__setstate__(state)
        self._plans, self._ahead = {}, {}
        self._views = self.__dict__.get("_views", [])
        self.defaults.pop("views", None)
        for number, group in enumerate(self.param_groups):
            if "views" in group:  # a copy made while the group had views
                self._take_views(group)
            elif number < len(before):  # loaded: torch made new groups of the same parameters
                known = [(g, v, count) for g, v, count in self._views if g is before[number]]
                self._views += [(group, v, count) for _, v, count in known]
            for name, value in self.defaults.items():  # saved by a version without this setting
                if name != "differentiable":  # torch's own, which no group has
                    group.setdefault(name, value)
        self._views = [e for e in self._views if any(e[0] is g for g in self.param_groups)]
        unpacked(self.state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but each state keeps its dtype; torch casts it to the parameter's.

        `sharding` and views stay: they describe these processes and tensors, not the saved ones.
        torch.optim.Muon's state is accepted too. Raises ValueError, and changes nothing, for
        another optimizer's state and if a state has a different shape than its parameter needs.
        """

        def last(_: torch.optim.Optimizer, loaded: dict[str, Any]) -> dict[str, Any]:
            return prepared(loaded, self.param_groups, [self.views(g) for g in self.param_groups])

        handle = self.register_load_state_dict_pre_hook(last)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            ahead = self._ahead.pop(number, frozenset())
            everyone = frozenset(range(len(group["params"])))
            work = self._work(number, group, everyone - ahead if ahead else None)
            here = bool(work.active or work.batches)
            counted = ahead or (here and not self._is_trial(group, work))
            if here:
                self._step_group(group, work)
            if counted and (group["shards"] > 1 or group["momentum_dtype"] == "int8"):
                group["steps"] += 1
        return loss

    @torch.no_grad()
    def step_ahead(self, number: int, members: frozenset[int]) -> None:
        """Step these tensors of a group, given by position, ahead of `step`, which then skips them
        (see overlap.py). No view joins them with other tensors."""
        group = self.param_groups[number]
        self._step_group(group, self._work(number, group, members))
        self._ahead[number] = self._ahead.get(number, frozenset()) | members

    def _work(
        self, number: int, group: dict[str, Any], among: frozenset[int] | None = None
    ) -> Work:
        """What this step does; planned anew if tensors, gradients or settings have changed.

        among: restricts the work to these tensors.
        """
        if "views" in group:  # given since the last step
            self._take_views(group)
        in_shards = group["shards"] > 1 and group["steps"] % group["period"] > 0
        settings = group["scale"], group["shards"], group["sharding"], group["second_moment"]
        now = (in_shards, settings, tuple(map(_seen, group["params"])))
        plans = self._plans.setdefault((number, among), [])
        for known, work_ in plans:
            if known == now:
                return work_
        if len(plans) == PLANS:
            plans.clear()
        plans.append((now, self._planned(group, in_shards, among)))
        return plans[-1][1]

    def _planned(
        self, group: dict[str, Any], in_shards: bool, among: frozenset[int] | None
    ) -> Work:
        check(group)
        params, views = group["params"], self.views(group)
        check_views(group, views)
        asked = range(len(params)) if among is None else sorted(among)
        trained = [k for k in asked if params[k].requires_grad]
        active = [k for k in trained if params[k].grad is not None]
        for k in active:
            check_state(group, k, self.state.get(params[k], {}), views)
        views = only(views, trained)
        if in_shards:
            views = [shards(view, params, group["shards"]) for view in views]
        return work(group, views, active)

    def _step_group(self, group: dict[str, Any], work: Work) -> None:
        states = {
            k: needed(self.state[group["params"][k]], group, k, lambda: self.views(group))
            for k in work.active
        }
        held = hold(group, work, states)
        if not held.params:
            return
        orthogonalizer = Orthogonalizer(**group["orthogonalizer"])
        workspace = Workspace(next(iter(held.params.values())).device)
        step_held(held, work, group, orthogonalizer, workspace)
        for original, copy in held.copies:
            original.copy_(copy)

    def _is_trial(self, group: dict[str, Any], work: Work) -> bool:
        """Whether this is the step at rate 0 with which torch's distributed checkpoint makes an
        optimizer create its state; such a step does not count."""
        stepped = any(self.state.get(group["params"][k]) for k in work.active)
        return not stepped and bool(group["lr"] == 0)


def _seen(p: Tensor) -> tuple | None:
    """The properties of a parameter that a plan depends on."""
    if not p.requires_grad:  # an integer tensor has a gradient only by mistake
        return None if p.grad is None or p.is_floating_point() else (p.dtype,)
    return p.grad is not None, p.shape, p.stride(), getattr(p, "placements", None)

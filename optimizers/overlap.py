"""Starts Muon's step for parameters that have their gradients while backward still runs.

On a GPU the step runs on a stream of its own, on a CPU in a thread of its own.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from optimizers.muon import Muon
from optimizers.sharding.plan import count_processes

# Weights stepped together: enough to fill the device, few enough to start early.
ELEMENTS = {"cpu": 2**22, "cuda": 2**24}


class Overlap:
    """Makes a Muon start its step in backward passes inside its `with`; `step` does the rest.

        overlap = Overlap(muon)
        with overlap:
                loss.backward()  # if there are several, only the last before the step
        muon.step()

    The updates equal those of `step` alone, except for rounding. Set rates and everything else that
    the step needs before; do not change gradients afterwards, which rules out clipping by the norm
    of all gradients. `step` handles parameters without a gradient and those whose gradients come
    late.
    Raises ValueError for parameters on several processes.
    """

    def __init__(self, muon: Muon, elements: int | None = None) -> None:
        """elements: the number of weights in a bundle that is stepped together."""
        self.muon = muon
        self.bundles: list[tuple[int, frozenset[int]]] = []  # group number, members
        self.bundle_of: dict[int, int] = {}
        self.late: list[set[int]] = []  # per bundle: parameters still without a gradient
        self.jobs: list[Future] = []
        self.hooks: list[Any] = []
        self.running = False
        for number, group in enumerate(muon.param_groups):
            if count_processes(group["params"]) > 1:
                raise ValueError("overlap: takes parameters of one process only")
            for members in bundles(muon, group, elements):
                for k in members:
                    p = group["params"][k]
                    self.bundle_of[id(p)] = len(self.bundles)
                    self.hooks.append(p.register_post_accumulate_grad_hook(self._arrived))
                self.bundles.append((number, members))
        self.hooks.append(muon.register_step_pre_hook(lambda *_: self.wait()))
        device = next(p.device for group in muon.param_groups for p in group["params"])
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.worker = ThreadPoolExecutor(1, "muon") if self.stream is None else None

    def __enter__(self) -> "Overlap":
        if self.jobs:
            raise RuntimeError("overlap: a backward pass before the step of the last one")
        self.running = True
        self.late = [
            {id(self.muon.param_groups[number]["params"][k]) for k in members}
            for number, members in self.bundles
        ]
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.running = False
        if kind is not None:  # after an error `step` will not be called
            self.wait()

    def remove(self) -> None:
        """Remove all hooks from the parameters and the Muon."""
        self.wait()
        for hook in self.hooks:
            hook.remove()
        if self.worker is not None:
            self.worker.shutdown()

    def _arrived(self, p: Tensor) -> None:
        if not self.running:
            return
        bundle = self.bundle_of[id(p)]
        self.late[bundle].discard(id(p))
        if self.late[bundle]:
            return
        if self.worker is not None:
            self.jobs.append(self.worker.submit(self.muon.step_ahead, *self.bundles[bundle]))
            return
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream(p.device))
        done: Future = Future()
        with torch.cuda.stream(self.stream):
            done.set_result(self.muon.step_ahead(*self.bundles[bundle]))
        self.jobs.append(done)

    def wait(self) -> None:
        """Wait for all started steps. Raises the error of a step that failed."""
        jobs, self.jobs = self.jobs, []
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        for job in jobs:
            job.result()


def overlaps(optimizers: Iterable[torch.optim.Optimizer], chosen: str) -> list[Overlap]:
    """One Overlap per Muon among the optimizers if `chosen` (optimizer.overlap) is backward."""
    return [Overlap(one) for one in optimizers if type(one) is Muon and chosen == "backward"]


@contextmanager
def begun(overlaps: Iterable[Overlap]) -> Iterator[None]:
    """Wraps a backward pass in which all of them start their steps."""
    with ExitStack() as stack:
        for overlap in overlaps:
            stack.enter_context(overlap)
        yield


def bundles(muon: Muon, group: dict[str, Any], elements: int | None) -> Iterable[frozenset[int]]:
    """The group's tensors in bundles, the last tensors first because their gradients come first.
    Tensors that views join stay together."""
    params = group["params"]
    limit = elements or ELEMENTS.get(params[0].device.type if params else "cpu", ELEMENTS["cpu"])
    joined: dict[int, set[int]] = {}
    for view in muon.views(group):
        members = set(view["members"]).union(*(joined.get(k, set()) for k in view["members"]))
        joined |= dict.fromkeys(members, members)
    bundle: set[int] = set()
    seen: set[int] = set()
    for k in reversed(range(len(params))):
        if k in seen or k not in joined:
            continue
        seen |= joined[k]
        if bundle and sum(params[i].numel() for i in bundle | joined[k]) > limit:
            yield frozenset(bundle)
            bundle = set()
        bundle |= joined[k]
    if bundle:
        yield frozenset(bundle)

"""Restores a model after a forward pass, whatever the pass changes in it."""

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

CONTAINERS = (dict, OrderedDict, list, set)


class Kept:
    """A model's contents: all attributes of its modules and the values of its tensors.

    Buffers and plain tensors are copied at once. A parameter may be large, so it is copied only
    when something is about to write to it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.attributes = [(module, dict(module.__dict__)) for module in model.modules()]
        values = [v for _, held in self.attributes for v in held.values()]
        self.contents = [(v, v.copy()) for v in values if type(v) in CONTAINERS]
        inside = [x for _, content in self.contents for x in _values(content)]
        tensors = {id(x): x for x in (*values, *inside) if isinstance(x, Tensor) and not x.is_meta}
        parameters = [x for x in tensors.values() if isinstance(x, nn.Parameter)]
        self.storages = [(p, p.data) for p in parameters]
        self.copies = {
            i: (x, x.detach().clone())
            for i, x in tensors.items()
            if not isinstance(x, nn.Parameter)
        }
        self.by_storage: dict[int, list[Tensor]] = {}
        for p in parameters:
            self.by_storage.setdefault(p.untyped_storage().data_ptr(), []).append(p)

    def before(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
        """Called before every call of torch: copies what that call may write to."""
        name = getattr(function, "__name__", "")
        inplace = name == "__setitem__" or name.startswith("__i") or name.endswith("_")
        target = kwargs.get("out", args[0] if args and inplace else None)
        if isinstance(target, Tensor) and not target.is_meta:
            for p in self.by_storage.get(target.untyped_storage().data_ptr(), ()):
                if id(p) not in self.copies:
                    self.copies[id(p)] = (p, p.detach().clone())

    def restore(self) -> None:
        for module, held in self.attributes:
            module.__dict__.clear()
            module.__dict__.update(held)
        for container, content in self.contents:
            if isinstance(container, list):
                container[:] = content
            else:
                container.clear()
                container.update(content)
        for p, data in self.storages:
            if p.data_ptr() != data.data_ptr() or p.shape != data.shape:
                p.data = data
        with torch.no_grad():
            for tensor, copy in self.copies.values():
                if not torch.equal(tensor, copy):  # a needless write may break a graph
                    tensor.detach().copy_(copy)


def _values(container: Any) -> list[Any]:
    return list(container.values() if isinstance(container, dict) else container)


@contextmanager
def untouched(model: nn.Module) -> Iterator[Kept]:
    """Inside, the model may change anything; afterwards it and all random states are restored."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    numpy = sys.modules.get("numpy")
    states = random.getstate(), numpy.random.get_state() if numpy else None
    kept = Kept(model)
    try:
        with torch.random.fork_rng(devices=sorted(devices)):
            yield kept
    finally:
        kept.restore()
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])

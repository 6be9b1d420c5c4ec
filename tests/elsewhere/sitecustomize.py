"""Makes a Python process find another machine's packages: on PYTHONPATH, as tests/bf16 is.

ABSENT="wandb altair": these are not installed. OLDER_TORCH=1: torch lacks what came after 2.11 and
this project uses where it is there.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.metadata
import inspect
import os
import sys


def hide(packages: list[str]) -> None:
    """No import finds them, nor does a look for their versions."""
    sys.modules |= dict.fromkeys(packages)  # None: `import` raises ModuleNotFoundError
    known = importlib.metadata.Distribution.from_name

    def from_name(name: str):
        if name.replace("-", "_") in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    importlib.metadata.Distribution.from_name = from_name


class Older(importlib.abc.MetaPathFinder):
    """Takes away from torch, once it is imported, what 2.11 did not have."""

    def find_spec(self, name, path, target=None):
        if name != "torch":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            age(module)

        spec.loader.exec_module = exec_module
        return spec


def age(torch) -> None:
    for name in ("all_gather_single", "reduce_scatter_single"):
        vars(torch.distributed).pop(name, None)
    torch.compile = without(torch.compile, "recompile_limit")
    ddp = torch.nn.parallel.DistributedDataParallel
    ddp.__init__ = without(ddp.__init__, "forward_sync_buffers")


def without(function, name: str):
    """The function as if it did not take the argument."""
    signature = inspect.signature(function)
    kept = [one for one in signature.parameters.values() if one.name != name]

    @functools.wraps(function)
    def older(*args, **kwargs):
        if name in kwargs:
            raise TypeError(f"got an unexpected keyword argument {name!r}")
        return function(*args, **kwargs)

    older.__signature__ = signature.replace(parameters=kept)
    return older


if absent := os.environ.get("ABSENT"):
    hide(absent.split())
if os.environ.get("OLDER_TORCH"):
    sys.meta_path.insert(0, Older())

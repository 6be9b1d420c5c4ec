"""A step on a GPU: as strip by strip, and in how many launches.

The kernels run where Triton is installed, on a CPU in its interpreter. What is launched is counted
for a GPU that is not there, on tensors without data.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models import gpt2
from optimizers import kernels
from optimizers.muon import Muon
from optimizers.routing import route
from tests.helpers.commands import ROOT
from tests.helpers.zoo import settings


@pytest.mark.skipif(not kernels.installed(), reason="Triton is not installed")
def test_kernels_in_tritons_interpreter_do_as_torch_does():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.helpers.interpreted"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "as without kernels\n", done.stderr


# What is no launch: views and new memory.
QUIET = tuple(
    f"aten.{name}."
    for name in (
        "as_strided",
        "detach",
        "diagonal",
        "empty",
        "empty_like",
        "expand",
        "new_empty",
        "slice",
    )
)
QUIET += ("aten.promote_types.", "aten.transpose.", "aten.view.", "prim.", "profiler.")


class Launches(TorchDispatchMode):
    """Operators that run on the device, and the bytes that each reads and writes."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []
        self.bytes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if not str(func).startswith(QUIET):
            self.names.append(str(func))
            given = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
            given |= kwargs or {}
            written = {a.name for a in func._schema.arguments if a.is_write}
            size = sum(_bytes(value) * (2 if k in written else 1) for k, value in given.items())
            self.bytes.append(size + (0 if written else _bytes(found)))
        return found


def _bytes(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes if value.is_cuda else 0
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


@pytest.fixture
def hopper(monkeypatch):
    """Tensors on an H100 that is not there."""
    monkeypatch.setattr(kernels, "installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    return FakeTensorMode(allow_non_fake_inputs=True)


def launched_by(hopper, optimizer, qkv):
    """What the second step of Muon's part launches, and how many weights it has."""
    model = gpt2.build(vocab_size=8, layers=12, heads=12, width=768, positions=8)
    routing = route(model, settings(optimizer, qkv=qkv))
    muon = next(o for o in routing.optimizers if type(o) is Muon)
    with hopper:
        for group in muon.param_groups:
            group["params"] = [torch.empty(p.shape, device="cuda") for p in group["params"]]
            for p in group["params"]:
                p.requires_grad_().grad = torch.empty_like(p)
        muon.step()
        with Launches() as launched:
            muon.step()
        return launched, sum(p.numel() for g in muon.param_groups for p in g["params"])


@pytest.mark.parametrize("qkv", ["fused", "split", "per_head"])
def test_a_step_of_gpt2_smalls_hidden_matrices_is_60_launches(hopper, qkv):
    launched, weights = launched_by(hopper, "hybrid", qkv)
    assert len(launched.names) <= 60, launched.names
    moved = dict(zip(launched.names, launched.bytes, strict=True))
    assert launched.names.count("muon.gather.default") == 1
    # Gradients, the momentum both ways, bf16 stacks; stacks, weights both ways; and small tables.
    least = {"muon.gather.default": (4 + 8 + 2) * weights, "muon.apply.default": (2 + 8) * weights}
    assert all(least[name] <= moved[name] < 1.15 * least[name] for name in least)


def test_all_vectors_of_pure_muon_move_in_one_launch(hopper):
    launched, _ = launched_by(hopper, "muon", "fused")
    assert launched.names.count("muon.gather.default") == 1
    assert launched.names.count("muon.apply.default") == 1
    assert len(launched.names) <= 80

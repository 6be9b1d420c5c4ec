"""What a step of Muon takes of memory beside its state."""

import pytest
import torch

from bench.measuring import meter
from optimizers.muon import Muon
from tests.helpers.matrices import random


@pytest.mark.parametrize("method", ["newton_schulz", "gram"])
def test_a_step_needs_the_memory_of_torchs_and_one_stack_and_never_more(method):
    """On matrices of which one fills a stack, as those of GPT-2 small do."""
    weights = [torch.nn.Parameter(random(512, 2048, seed=i, dtype=torch.float32)) for i in range(3)]
    for p in weights:
        p.grad = torch.ones_like(p)
    ours = Muon(weights, orthogonalizer={"method": method, "dtype": "fp32"})
    theirs = torch.optim.Muon(weights)
    peaks = []
    for optimizer in (ours, theirs):
        optimizer.step()  # makes the state
        held = [meter.held("cpu", optimizer.step) for _ in range(3)]
        assert len(set(held)) == 1 and held[0].left == 0
        peaks.append(held[0].peak)
    assert 0 < peaks[0] <= peaks[1] + weights[0].nbytes


def test_8_bit_momentum_saves_memory_during_a_step_too():
    """One matrix at a time is decoded, and its dice are rolled."""
    held = {}
    for dtype in ("fp32", "int8"):
        weights = [torch.nn.Parameter(random(512, 2048, dtype=torch.float32)) for _ in range(4)]
        for p in weights:
            p.grad = torch.ones_like(p)
        optimizer = Muon(weights, momentum_dtype=dtype, orthogonalizer={"dtype": "fp32"})
        optimizer.step()  # makes the state
        kept = sum(t.nbytes for state in optimizer.state.values() for t in state.values())
        held[dtype] = kept, meter.held("cpu", optimizer.step).peak
    assert held["int8"][1] <= held["fp32"][1] + 2.1 * weights[0].nbytes
    assert sum(held["int8"]) < sum(held["fp32"])

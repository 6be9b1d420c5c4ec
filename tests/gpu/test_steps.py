"""Steps of every optimizer and QKV mode on each device against those on the CPU."""

import pytest
import torch

from bench.data.random_batches import for_model
from bench.training import prepare
from tests.helpers.commands import TINY, settle
from tests.helpers.matrices import random
from tests.helpers.zoo import OPTIMIZERS

QKV = ("fused", "per_head", "head_groups")
CASES = [[f"optimizer={name}"] for name in OPTIMIZERS]
CASES += [["optimizer=hybrid", f"qkv={mode}"] for mode in QKV]
CASES += [["optimizer=hybrid", "model=vit_nano", f"qkv={mode}"] for mode in ("split", "per_head")]
CASES += [["optimizer=muon", "model=gpt2_nano_untied"]]
STEPS = 3


def stepped(device: str, words: list[str]) -> dict[str, torch.Tensor]:
    """The parameters, on the CPU, after steps along gradients that are the same everywhere."""
    settings = settle(*TINY, f"train.device={device}", *words)
    model = prepare.model(settings, for_model(settings))
    routing = prepare.routing(settings, model)
    for step in range(STEPS):
        for number, p in enumerate(model.parameters()):
            noise = random(*p.shape, seed=1000 * step + number, dtype=torch.float32)
            p.grad = noise.to(device)
        routing.step()
    return {name: p.detach().cpu() for name, p in model.named_parameters()}


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_steps_are_those_of_the_cpu(device, words):
    """torch's Muon iterates in bf16, which rounds differently there."""
    settings = settle(*TINY, "train.device=cpu", *words)
    start = dict(prepare.model(settings, for_model(settings)).named_parameters())
    exact, found = stepped("cpu", words), stepped(device, words)
    close = 0.05 if "optimizer=torch_muon" in words else 1e-3
    for name, p in exact.items():
        moved = (p - start[name].detach()).norm()
        assert moved > 0 and (found[name] - p).norm() <= close * moved, name

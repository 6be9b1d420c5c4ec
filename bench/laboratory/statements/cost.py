"""Statements on what an optimizer computes and stores for a single matrix."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.laboratory.statements import updates
from bench.laboratory.statements.check import CONFIRMED, NOTES_A, REFUTED, Check, verdict
from bench.laboratory.statements.updates import SHAPE, Make, trained
from bench.measuring import flops
from optimizers.state import state_bytes

SIDE = 512  # of the single matrix
HALF = (0.49, 0.51)  # of the state: one buffer of two, plus counters


def checks(seed: int) -> Iterator[Check]:
    yield adam_elementwise(seed)
    yield lone_matrix_state()


def adam_elementwise(seed: int) -> Check:
    """Two properties of an element-wise step: no matrix product, and entries can be permuted."""
    of_adamw, of_muon = products(updates.adamw), products(updates.muon)
    off_adamw, off_muon = (moved_entries(make, seed) for make in (updates.adamw, updates.muon))
    return Check(
        name="adam_elementwise",
        statement="AdamW's step is element-wise only, Muon's is not",
        value=of_adamw.flops,
        low=of_adamw.flops,
        high=of_adamw.flops,
        n=1,
        unit="FLOPs of matrix products in AdamW's step",
        verdict=verdict(
            of_adamw.flops == 0 and off_adamw == 0 and of_muon.products > 0 and off_muon > 0,
            of_adamw.products > 0 or off_adamw > 0,
        ),
        condition=f"one {SHAPE[0]}x{SHAPE[1]} matrix; Muon's step has {of_muon.products} products; "
        f"with the gradients' entries permuted, AdamW's update differs from the permuted one by "
        f"{off_adamw:g} at most, Muon's by {off_muon:.2g}; confirmed if AdamW has none of both, "
        "and Muon has both",
        source=NOTES_A,
    )


def products(make: Make) -> flops.Count:
    """The products of a step after the first, which creates the state."""
    p = torch.zeros(SHAPE, requires_grad=True)
    p.grad = torch.ones(SHAPE)
    optimizer = make([p])
    optimizer.step()
    return flops.count(optimizer.step)


def moved_entries(make: Make, seed: int) -> float:
    """The largest difference between permuting entries before a step and after it."""
    gradients = updates.gaussian_gradients(seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(gradients[0].numel(), generator=generator)

    def moved(X: Tensor) -> Tensor:
        return X.flatten(-2)[..., order].view_as(X)

    return float((trained(make, moved(gradients)) - moved(trained(make, gradients))).abs().max())


def lone_matrix_state() -> Check:
    """Measured after a step, together with the share that is saved of more than the state."""
    held = {
        name: measured_state(make)
        for name, make in (
            ("Adam", torch.optim.Adam),
            ("AdamW", updates.adamw),
            ("Muon", updates.muon),
        )
    }
    weights = 4 * SIDE * SIDE
    saved = held["AdamW"] - held["Muon"]
    share, of_both, of_all = (saved / (held["AdamW"] + k * weights) for k in (0, 1, 2))
    figures = ", ".join(f"{name} {count:,}" for name, count in held.items())
    return Check(
        name="lone_matrix_buffer",
        statement="Muon keeps one buffer for a matrix, half of AdamW's state",
        value=share,
        low=share,
        high=share,
        n=1,
        unit="share of AdamW's state, one matrix",
        verdict=CONFIRMED if HALF[0] <= share <= HALF[1] else REFUTED,
        condition=f"bytes of one {SIDE}x{SIDE} fp32 matrix: {figures}; of weights and state "
        f"together the saving is {of_both:.1%}, with the gradients too {of_all:.1%}; confirmed "
        f"from {HALF[0]:g} to {HALF[1]:g}",
        source=NOTES_A,
    )


def measured_state(make: Make) -> int:
    """Bytes that an optimizer of one matrix stores after a step."""
    p = torch.zeros(SIDE, SIDE, requires_grad=True)
    p.grad = torch.ones(SIDE, SIDE)
    optimizer = make([{"params": [p], "role": "hidden"}])
    optimizer.step()
    return state_bytes([optimizer])["total"]

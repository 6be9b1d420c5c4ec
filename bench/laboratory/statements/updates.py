"""An optimizer's updates for given gradients: one matrix, no model, no data."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimizers.muon import Muon

Make = Callable[[list], Optimizer]  # takes parameters or groups
SHAPE = (48, 64)
STEPS = 10


def adamw(params: list, lr: float = 0.1, weight_decay: float = 0.1) -> Optimizer:
    """With the settings of conf/optimizer/adamw.yaml."""
    return torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay)


def muon(
    params: list, lr: float = 0.1, weight_decay: float = 0.1, dtype: str = "fp64"
) -> Optimizer:
    """With the settings of conf/optimizer/muon.yaml, except for the dtype of the iteration."""
    return Muon(params, lr=lr, weight_decay=weight_decay, orthogonalizer={"dtype": dtype})


def trained(make: Make, gradients_tnm: Tensor) -> Tensor:
    """A matrix (n, m), initially zero, after one step with each of the gradients."""
    p = torch.zeros_like(gradients_tnm[0], requires_grad=True)
    optimizer = make([p])
    for gradient in gradients_tnm:
        p.grad = gradient.clone()
        optimizer.step()
    return p.detach()


def gaussian_gradients(seed: int, shape: tuple[int, int] = SHAPE) -> Tensor:
    """Independent standard normal gradients (STEPS, n, m), fp64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STEPS, *shape, dtype=torch.float64, generator=generator)


def deviation(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, Frobenius norms."""
    return float((found - expected).norm() / expected.norm())

"""Random matrices, and optimizers that step them."""

import torch

PLAIN64 = {"method": "newton_schulz", "dtype": "fp64"}


def random(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def parameters(*tensors):
    return [torch.nn.Parameter(t.clone()) for t in tensors]


def train(optimizer, weights, steps=20):
    """Steps whose gradients are noise and a pull to zero, so that an error feeds on itself."""
    for step in range(steps):
        for number, p in enumerate(weights):
            noise = random(*p.shape, seed=1000 * step + number, dtype=p.dtype)
            p.grad = noise + 0.1 * p.detach()
        optimizer.step()


def moved(before, after):
    return (after - before).norm().item()


# the formula ---------------------------------------------------------------------------------

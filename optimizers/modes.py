"""Optimizers that evaluate other weights than they train, as Schedule-Free (arXiv 2405.15682)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


@contextmanager
def evaluating(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Inside, the parameters are the weights to evaluate; afterwards, to the bit, those to train.

    An optimizer that has two sets of weights switches between them by its methods eval() and
    train(). What these compute is rounded, so copies are kept: an evaluation changes no training.
    """
    switching = [one for one in optimizers if hasattr(one, "eval") and hasattr(one, "train")]
    tensors = [p for one in switching for group in one.param_groups for p in group["params"]]
    trained = [p.detach().clone() for p in tensors]
    for one in switching:
        one.eval()
    try:
        yield
    finally:
        for one in switching:
            one.train()
        with torch.no_grad():
            for p, own in zip(tensors, trained, strict=True):
                p.copy_(own)

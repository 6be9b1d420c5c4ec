"""The loss that is trained and evaluated: the suite's own, from a model's logits alone.

A model's own loss is not used: some do not shift the labels, some add terms of their own (the
balance of a router), and so could not be compared.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # a label that does not count, in F.cross_entropy as in transformers


def of(forward: Callable, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The mean loss on a batch, a scalar in fp32, and the logits; the model sees no labels.

    forward: what takes the batch's other tensors by name and returns an object with `.logits`.
    """
    logits = forward(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return cross_entropy(logits, batch["labels"]), logits


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy in fp32, a scalar.

    Of text, logits (B, T, V) and labels (B, T): each position predicts the token after it. Of
    images, logits (B, classes) and labels (B,). Labels move and logits stay: those of text are
    the largest tensor of a step, and a slice of them would be copied.
    """
    labels = labels.to(logits.device)
    if labels.ndim == 2:
        labels = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    logits = logits.float().reshape(-1, logits.shape[-1])
    return F.cross_entropy(logits, labels.reshape(-1), ignore_index=IGNORED)

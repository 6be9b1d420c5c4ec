"""The loss for training and evaluation: the suite's own, computed only from a model's logits.

A model's own loss is not used: some models do not shift the labels and some add terms of their own
(a router's balance), so their losses could not be compared.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100  # ignored label, in F.cross_entropy as in transformers
PART = 2**18  # logits per thread and pass: in fp32 they stay in its cache


def of(forward: Callable, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The mean loss on a batch, a scalar in fp32, and the logits; the model gets no labels.

    forward: takes the batch's other tensors by name and returns an object with `.logits`.
    """
    logits = forward(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return cross_entropy(logits, batch["labels"]), logits


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy in fp32, a scalar.

    For text, logits (B, T, V) and labels (B, T): each position predicts the next token. For images,
    logits (B, classes) and labels (B,). The labels are shifted, not the logits: a text's logits are
    the largest tensor of a step, and slicing would copy them.
    """
    labels = labels.to(logits.device)
    if labels.ndim == 2:
        labels = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    large = logits.numel() > PART and logits.device.type == "cpu"
    if large and type(logits) is Tensor and not torch.compiler.is_compiling():
        return _InParts.apply(logits, labels)
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORED)


class _InParts(torch.autograd.Function):
    """F.cross_entropy on a CPU, bit for bit, a few rows at a time: its passes over all logits in
    fp32 cost memory traffic, not arithmetic. The backward pass computes them again."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(logits, labels)
        counts = labels != IGNORED
        at = labels.where(counts, 0).unsqueeze(1)
        parts = _parts(logits, at)
        chosen = torch.cat([F.log_softmax(x.float(), -1).gather(1, y) for x, y in parts])
        ctx.count = counts.sum()
        return F.nll_loss(chosen, labels.where(~counts, 0), ignore_index=IGNORED)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, labels = ctx.saved_tensors
        each = gradient / ctx.count
        of_logits = torch.empty_like(logits)
        for x, y, result in _parts(logits, labels, of_logits):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                total = F.cross_entropy(x.float(), y, ignore_index=IGNORED, reduction="sum")
            result.copy_(torch.autograd.grad(total, x, each)[0])
        return of_logits, None


def _parts(logits: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors in parts of a few rows, the same rows of each."""
    rows = max(1, PART * torch.get_num_threads() // logits.shape[1])
    return zip(*(tensor.split(rows) for tensor in (logits, *others)), strict=True)

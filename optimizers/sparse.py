"""Sparse gradients: which parameters have them, and which optimizers accept them."""

import torch
from torch import nn

TAKE_SPARSE = (torch.optim.SparseAdam, torch.optim.SGD, torch.optim.Adagrad)


def sparse_parameters(model: nn.Module) -> set[int]:
    """The ids of parameters that only sparse embeddings use; a tied head has a dense gradient."""
    sparse: set[int] = set()
    dense: set[int] = set()
    for module in model.modules():
        is_sparse = isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse
        (sparse if is_sparse else dense).update(id(p) for p in module.parameters(recurse=False))
    return sparse - dense


def refuse_other_gradients(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """Raise ValueError, naming the parameter, if an optimizer would fail at its first step.

    SparseAdam accepts only sparse gradients; of all others torch's SGD and Adagrad accept them too.
    """
    sparse = sparse_parameters(model)
    names = {id(p): name for name, p in model.named_parameters()}
    for optimizer in optimizers:
        name = type(optimizer).__name__
        for p in [p for group in optimizer.param_groups for p in group["params"]]:
            if isinstance(optimizer, torch.optim.SparseAdam) and id(p) not in sparse:
                raise ValueError(
                    f"optimizer.roles: {name} needs a sparse gradient, but that of "
                    f"{names[id(p)]} is dense; use an untied, sparse embedding: "
                    "model=gpt2_sparse, gpt2_nano_sparse or gpt2_pico_sparse"
                )
            if id(p) in sparse and not isinstance(optimizer, TAKE_SPARSE):
                raise ValueError(
                    f"optimizer.roles: the gradient of {names[id(p)]} is sparse, which {name} "
                    "does not take; use optimizer=hybrid_sparse or model.sparse_embedding=false"
                )

"""Reads what each weight does from one forward pass, not from names.

The probe replaces the outputs of every linear map by numbers, a different one for each output.
Attention receives them as q, k and v, whether it is `scaled_dot_product_attention` or products with
a softmax in between. There the numbers show what the model did on the way (split, reshape,
transpose, interleave). Rotary embeddings leave the first position unchanged; normalisations,
activations and scales are made to return their input. Products also show how a weight is stored:
(in, out) or (out, in).
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.structure.seen import Seen
from optimizers.structure.traces import untouched
from optimizers.structure.watch import Watch

NORM = re.compile("Norm(?!ed|Linear|Conv)")  # in the name of a normalisation module
MAPS = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.modules.conv._ConvNd)


def probe(model: nn.Module, forward: Callable[[], Any]) -> Seen:
    """Run `forward` and read what it does; after an error, up to that error (in `error`).

    It leaves the model and the random state unchanged.
    """
    with untouched(model) as kept:
        watch = Watch(model, kept)
        model.eval()
        for module in model.modules():
            if isinstance(getattr(module, "attention_scaling", 0), float):
                vars(module)["attention_scaling"] = 1.0  # YaRN's rotation, arXiv 2309.00071
        eager = torch.compiler.set_stance("force_eager")
        try:
            with torch.no_grad(), _norms_pass_on(model), eager, watch:
                output = forward()
            watch.given_by_model(output)
        except Exception as error:  # a model may raise anything; what was seen before stays valid
            watch.seen.error = error
    return watch.seen


@contextmanager
def _norms_pass_on(model: nn.Module) -> Iterator[None]:
    """Inside, every normalisation returns its input."""

    def what_it_got(module, args, kwargs, output):
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        same = isinstance(output, Tensor) and given is not None and given.shape == output.shape
        return given if same else output

    hooks = [
        m.register_forward_hook(what_it_got, with_kwargs=True)
        for m in model.modules()
        if normalises(m)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def normalises(module: nn.Module) -> bool:
    """Whether a module's name says normalisation and it is no linear map or table."""
    return bool(NORM.search(type(module).__name__)) and not isinstance(module, MAPS)

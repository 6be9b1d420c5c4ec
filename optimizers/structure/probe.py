"""What does each weight do? Read off one forward pass, not off names.

The outputs of every linear map are replaced by numbers, each output by one of its own. Whatever
the model does to them on the way (split, reshape, transpose, interleave) can then be read off the
q, k and v that attention receives, be it `scaled_dot_product_attention` or products with a softmax
between them. Rotary embeddings leave the first position as it is; normalisations, activations and
scales are made to pass their input on. Products also show how a weight is stored: whether (in,
out) or (out, in).
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

NORM = re.compile("Norm(?!ed|Linear|Conv)")  # in the name of a module that normalises
MAPS = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.modules.conv._ConvNd)


def probe(model: nn.Module, forward: Callable[[], Any]) -> Seen:
    """Run `forward` and read what it does, up to an error (in `error`) where it raises one.

    It leaves no trace, neither in the model nor in the random state.
    """
    with untouched(model) as kept:
        watch = Watch(model, kept)
        model.eval()
        for module in model.modules():
            if isinstance(getattr(module, "attention_scaling", 0), float):
                vars(module)["attention_scaling"] = 1.0  # of YaRN's rotation, arXiv 2309.00071
        eager = torch.compiler.set_stance("force_eager")
        try:
            with torch.no_grad(), _norms_pass_on(model), eager, watch:
                output = forward()
            watch.given_by_model(output)
        except Exception as error:  # a model may raise anything; what was seen before is true
            watch.seen.error = error
    return watch.seen


@contextmanager
def _norms_pass_on(model: nn.Module) -> Iterator[None]:
    """Inside, every normalisation gives back what it got."""

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
    """Whether a module is called a normalisation and is no linear map or table."""
    return bool(NORM.search(type(module).__name__)) and not isinstance(module, MAPS)

"""Where a model begins and ends: its tables of tokens and its heads.

The model's own answer comes first (get_input_embeddings, get_output_embeddings), then what the
forward pass showed. If neither tells, the order in which modules are registered decides.
"""

from itertools import takewhile
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from optimizers.structure.seen import Seen

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


class Ends(NamedTuple):
    """By the ids of weights: the tables of tokens, and the heads with the reason for each."""

    tables: set[int]
    heads: dict[int, str]


def ends(model: nn.Module, seen: Seen) -> Ends:
    tables = {id(p) for p in weights(accessed(model, "get_input_embeddings"))}
    heads = {id(p) for p in weights(accessed(model, "get_output_embeddings"))} | seen.outputs
    if heads:
        return Ends(tables, dict.fromkeys(heads, "that gives the model's output"))
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not linears:
        return Ends(tables, {})
    last = linears[-1]
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    if labels is None:
        found = [last]
    else:  # with several heads the output may be their mean
        shape = (labels, last.in_features)
        found = list(
            takewhile(lambda m: (m.out_features, m.in_features) == shape, reversed(linears))
        )
    reason = "that comes last, taken for the model's output"
    return Ends(tables, {id(p): reason for module in found for p in weights(module)})


def accessed(model: nn.Module, accessor: str) -> nn.Module | None:
    """The result of a model's accessor; None if it is missing or refuses."""
    try:
        found = getattr(model, accessor)()
    except Exception:  # transformers raise NotImplementedError, other models anything
        return None
    return found if isinstance(found, nn.Module) else None


def weights(module: nn.Module | None) -> list[Tensor]:
    """The matrices that a module itself owns, including those that its weight is computed from."""
    if module is None:
        return []
    own = [p for name, p in module.named_parameters(recurse=False) if name != "weight_g"]
    for part in getattr(module, "parametrizations", {}).values():
        if isinstance(part, ParametrizationList):
            own += [p for p in part.parameters(recurse=False) if p.numel() > max(p.shape)]
    return [p for p in own if p.ndim > 1]

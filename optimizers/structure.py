"""What is each parameter of a model? Its role and its matrix layout, each with the reason.

Read from module types, ties, shapes, the model's own configuration and, for attention, from a
probing forward pass. What cannot be known is listed as a plain matrix, reason NO_STRUCTURE.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from optimizers.probe import one_token, probe

ROLES = ("hidden", "conv", "embedding", "position", "head", "vector")
NO_STRUCTURE = "no structure found"

# Bare parameters (no module type speaks for them) are recognised by these words in their name.
POSITION_WORDS = re.compile(r"position|pos_emb|wpe|cls_token|class_token|mask_token|register")


class HeadSlice(NamedTuple):
    """Rows start..stop of a tensor belong to `part` (q, k or v) of `head`."""

    part: str
    head: int
    start: int
    stop: int


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, role, layout (views.LAYOUTS) and the reason for both.

    attention: the name of the attention module it projects to q, k or v for, with the rows of
    every head; output_heads: for the projection after attention, how many heads cut its fan-in.
    """

    name: str
    tensor: Tensor = field(repr=False)
    role: str
    layout: str
    reason: str
    attention: str | None = None
    slices: tuple[HeadSlice, ...] = ()
    output_heads: int | None = None


def describe(model: nn.Module, forward: Callable[[], Any] | None = None) -> list[Parameter]:
    """Every trainable parameter once, in the order of model.named_parameters().

    forward: a call of the model on the smallest input, by which attention is probed; models of
    transformers need none.
    """
    owners = _owners(model)
    facts = _attention_facts(model, forward)
    found = []
    for name, tensor in model.named_parameters():
        if not tensor.requires_grad:
            continue
        role, layout, reason = _role(model, owners[id(tensor)], tensor)
        fact = facts.get(id(tensor), {})
        if fact and reason == NO_STRUCTURE:
            reason = "a bare matrix"
        extra = {key: fact[key] for key in ("attention", "slices", "output_heads") if key in fact}
        reason = f"{reason}; {fact['reason']}" if fact else reason
        found.append(Parameter(name, tensor, role, layout, reason, **extra))
    return found


def _owners(model: nn.Module) -> dict[int, list[tuple[str, nn.Module, str]]]:
    """Of each tensor all places it is used in: (module name, module, attribute)."""
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for module_name, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in module.named_parameters(recurse=False):
            owners.setdefault(id(tensor), []).append((module_name, module, attribute))
    return owners


def _role(
    model: nn.Module, places: list[tuple[str, nn.Module, str]], tensor: Tensor
) -> tuple[str, str, str]:
    """(role, layout, reason) of one tensor from the places it is used in."""
    module_name, module, attribute = places[0]
    kind = type(module).__name__
    if "Norm" in kind:
        return "vector", "vector", f"{attribute} of {kind}"
    if tensor.ndim <= 1:
        return "vector", "vector", f"{attribute} of {kind}: a vector"
    embeddings = [p for p in places if isinstance(p[1], nn.Embedding)]
    if embeddings:
        return _embedding_role(model, places, embeddings[0])
    if isinstance(module, nn.Linear) and attribute == "weight":
        if _is_head(model, module_name, module):
            return "head", "matrix", "Linear that gives the model's output"
        return "hidden", "matrix", "Linear, stored (out, in)"
    if kind == "Conv1D" and hasattr(module, "nf"):
        return "hidden", "transposed", "transformers' Conv1D, stored (in, out)"
    if isinstance(module, nn.modules.conv._ConvNd) and attribute == "weight":
        transposed = getattr(module, "transposed", False)
        if not transposed:
            return "conv", "kernel", f"{kind} kernel, read as (out, in * kernel)"
    if POSITION_WORDS.search(f"{module_name}.{attribute}"):
        if tensor.numel() == max(tensor.shape):
            return "position", "vector", f"{attribute}: a learned token, by its name"
        if tensor.numel() == tensor.shape[-2] * tensor.shape[-1]:
            return "position", "table", f"{attribute}: a table of positions, by its name"
    return "hidden", "matrix" if tensor.ndim == 2 else "kernel", NO_STRUCTURE


def _embedding_role(
    model: nn.Module,
    places: list[tuple[str, nn.Module, str]],
    place: tuple[str, nn.Module, str],
) -> tuple[str, str, str]:
    name, module, _ = place
    others = [p for p in places if not isinstance(p[1], nn.Embedding)]
    if others:
        reason = f"Embedding tied to {others[0][0]}, oriented as the head it also is"
        return "embedding", "matrix", reason
    tokens = getattr(model, "get_input_embeddings", lambda: None)()
    if module is not tokens and POSITION_WORDS.search(name):
        return "position", "table", "Embedding of positions, by its name"
    return "embedding", "table", "Embedding, fan-out its width, fan-in its entries"


def _is_head(model: nn.Module, name: str, module: nn.Linear) -> bool:
    """The output embedding of a language model, or the last Linear with one row a label."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        return module is head
    linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    labels = getattr(getattr(model, "config", None), "num_labels", module.out_features)
    return bool(linears) and name == linears[-1] and module.out_features == labels


def _attention_facts(model: nn.Module, forward: Callable[[], Any] | None) -> dict[int, dict]:
    """By parameter (its id) what the probe saw it do around attention."""
    forward = forward or one_token(model)
    if forward is None:
        return {}
    try:
        calls = probe(model, forward)
    except Exception as error:  # a model that cannot take one token is trained with Q, K, V whole
        warnings.warn(f"attention could not be probed, Q, K, V stay whole: {error}", stacklevel=2)
        return {}
    names = {id(p): name for name, p in model.named_parameters()}
    parameters = dict(model.named_parameters())
    facts: dict[int, dict] = {}
    for call in calls:
        where = _common_parent([names[weight] for weight in call.rows])
        for weight, heads in call.rows.items():
            parts = "".join(sorted({part for part, _ in heads}, key="qkv".index))
            count = len({head for _, head in heads})
            slices = tuple(
                HeadSlice(part, head, start, stop)
                for (part, head), rows in heads.items()
                for start, stop in runs(rows)
            )
            reason = f"{', '.join(parts)} of {count} heads, read by probing"
            fact = {"attention": where, "slices": slices, "reason": reason}
            facts[weight] = fact
            bias = parameters.get(names[weight].removesuffix("weight") + "bias")
            if bias is not None:
                facts[id(bias)] = fact
        for weight, columns in call.outputs.items():
            facts[weight] = _output_facts(list(columns.values()))
    return facts


def _output_facts(columns: list[list[int]]) -> dict:
    """The linear map after attention, where each head has its own block of columns."""
    size = len(columns[0])
    in_order = [list(range(i * size, (i + 1) * size)) for i in range(len(columns))]
    if columns != in_order:
        return {}
    reason = f"output projection of {len(columns)} heads, read by probing"
    return {"output_heads": len(columns), "reason": reason}


def runs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """The numbers as ranges [start, stop) of neighbours, ascending."""
    start = previous = None
    for row in sorted(rows):
        if start is None:
            start = row
        elif row != previous + 1:
            yield start, previous + 1
            start = row
        previous = row
    if start is not None:
        yield start, previous + 1


def _common_parent(names: list[str]) -> str:
    """The innermost module that all these parameters are in."""
    paths = [name.removesuffix(".weight").split(".")[:-1] for name in names]
    shared = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)

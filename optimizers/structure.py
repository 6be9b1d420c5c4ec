"""What is each parameter of a model? Its role and its matrix layout, each with the reason.

Read from module types, ties, shapes and the model's own configuration. What cannot be known is
listed as a plain matrix with the reason NO_STRUCTURE.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

ROLES = ("hidden", "conv", "embedding", "position", "head", "vector")
NO_STRUCTURE = "no structure found"

# Bare parameters (no module type speaks for them) are recognised by these words in their name.
POSITION_WORDS = re.compile(r"position|pos_emb|wpe|cls_token|class_token|mask_token|register")
# Sibling projections that attention receives as q, k, v, by their usual names.
QKV_NAMES = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))
OUTPUT_NAMES = ("o_proj", "out_proj", "c_proj")
HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_head", "n_heads")


class HeadSlice(tuple):
    """(part, head, start, stop): rows start..stop of a tensor make `part` (q, k, v) of a head."""


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


def describe(model: nn.Module) -> list[Parameter]:
    """Every trainable parameter once, in the order of model.named_parameters()."""
    owners = _owners(model)
    projections = dict(_attention_projections(model))
    found = []
    for name, tensor in model.named_parameters():
        if not tensor.requires_grad:
            continue
        role, layout, reason = _role(model, owners[id(tensor)], tensor)
        attention = projections.get(name, {})
        if attention and role in ("hidden", "vector"):
            reason = f"{reason}; {attention['reason']}"
        else:
            attention = {}
        found.append(
            Parameter(
                name,
                tensor,
                role,
                layout,
                reason,
                attention.get("module"),
                attention.get("slices", ()),
                attention.get("output_heads"),
            )
        )
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


def _attention_projections(model: nn.Module) -> Iterator[tuple[str, dict]]:
    """(parameter name, facts) of the projections around every attention, by their names."""
    for name, module in model.named_modules():
        heads = _head_count(model, module)
        if not heads:
            continue
        children = dict(module.named_children())
        fused = children.get("c_attn")
        trio = next((names for names in QKV_NAMES if all(n in children for n in names)), None)
        if type(fused).__name__ == "Conv1D" and fused.nf == 3 * fused.nx:
            size = fused.nx // heads
            slices = tuple(
                HeadSlice((part, head, (i * heads + head) * size, (i * heads + head + 1) * size))
                for i, part in enumerate("qkv")
                for head in range(heads)
            )
            facts = dict(module=name, slices=slices, reason=f"q, k, v in thirds, {heads} heads")
            yield from _named(name, "c_attn", fused, facts)
        elif trio and all(isinstance(children[n], nn.Linear) for n in trio):
            size = children[trio[0]].out_features // heads
            for part, child in zip("qkv", trio, strict=True):
                count = children[child].out_features // size
                slices = tuple(HeadSlice((part, h, h * size, (h + 1) * size)) for h in range(count))
                facts = dict(module=name, slices=slices, reason=f"{part}, {count} heads, by name")
                yield from _named(name, child, children[child], facts)
        else:
            continue
        output = next((n for n in OUTPUT_NAMES if n in children), None)
        if output:
            facts = dict(output_heads=heads, reason=f"output projection of {heads} heads, by name")
            yield f"{name}.{output}.weight", facts


def _named(module_name: str, child: str, module: nn.Module, facts: dict):
    for attribute, _ in module.named_parameters(recurse=False):
        yield f"{module_name}.{child}.{attribute}", facts


def _head_count(model: nn.Module, module: nn.Module) -> int | None:
    """The number of heads the module itself states, else its or the model's configuration."""
    if not any(hasattr(module, n) for n in ("c_attn", *QKV_NAMES[0], *QKV_NAMES[1])):
        return None
    for source in (module, getattr(module, "config", None), getattr(model, "config", None)):
        for key in HEAD_COUNTS:
            count = getattr(source, key, None)
            if isinstance(count, int):
                return count
    return None

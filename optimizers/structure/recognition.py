"""The role and the layout of a parameter, by the module that owns it and by how it is used."""

import re
from typing import NamedTuple

from torch import Tensor, nn

from optimizers.structure.probe import NORM
from optimizers.views import as_stored

NO_STRUCTURE = "no structure found"

# Bare parameters (no module type speaks for them) are recognised by these words in their name.
POSITION_WORDS = re.compile(
    r"position|pos_emb|wpe|cls_token|class_token|mask_token|register|relative"
)
GATE_AND_UP = re.compile("gate_?up|up_?gate")
ADAPTER = re.compile(r"lora_(embedding_)?([AB])\b")  # as in PEFT; B A is added to a frozen weight

Place = tuple[str, nn.Module, str]  # a module's name, the module, the parameter's attribute


class Reading(NamedTuple):
    """groups: of a convolution, whose groups are linear maps of their own."""

    role: str
    layout: str
    reason: str
    groups: int = 1


def places(model: nn.Module) -> dict[int, list[Place]]:
    """Of each tensor (its id) all places it is used in."""
    found: dict[int, list[Place]] = {}
    for module_name, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in module.named_parameters(recurse=False):
            found.setdefault(id(tensor), []).append((module_name, module, attribute))
    return found


def recognise(model: nn.Module, where: list[Place], tensor: Tensor, layouts: set[str]) -> Reading:
    """What a parameter is, from the places it is used in.

    layouts: how matrix products were seen to read it.
    """
    module_name, module, attribute = where[0]
    kind = type(module).__name__
    if NORM.search(kind):
        return Reading("vector", "vector", f"{attribute} of {kind}")
    if tensor.ndim <= 1:
        return Reading("vector", "vector", f"{attribute} of {kind}: a vector")
    embeddings = [place for place in where if isinstance(place[1], nn.Embedding)]
    if embeddings:
        return _embedding(model, where, embeddings[0])
    adapter = ADAPTER.search(f"{module_name}.{attribute}")
    if adapter and tensor.ndim == 2:
        rank = tensor.shape[0 if adapter[2] == "A" else 1]
        return Reading("hidden", "matrix", f"low-rank adapter (rank {rank}), by its name")
    if isinstance(module, nn.Linear) and attribute == "weight":
        if _is_head(model, module_name, module):
            return Reading("head", "matrix", "Linear that gives the model's output")
        return Reading("hidden", "matrix", f"Linear, stored (out, in){_gate_and_up(module_name)}")
    if kind == "Conv1D" and hasattr(module, "nf"):
        return Reading("hidden", "transposed", "transformers' Conv1D, stored (in, out)")
    if isinstance(module, nn.modules.conv._ConvNd) and attribute == "weight":
        return _kernel(module, tensor)
    if POSITION_WORDS.search(f"{module_name}.{attribute}"):
        if tensor.numel() == max(tensor.shape):
            return Reading("position", "vector", f"{attribute}: a learned token, by its name")
        if tensor.numel() == tensor.shape[-2] * tensor.shape[-1]:
            return Reading("position", "table", f"{attribute}: a table of positions, by its name")
    return _bare(where[0], tensor, layouts)


def _embedding(model: nn.Module, where: list[Place], place: Place) -> Reading:
    name, module, _ = place
    others = [p for p in where if not isinstance(p[1], nn.Embedding)]
    if others:
        reason = f"Embedding tied to {others[0][0]}, oriented as the head it also is"
        return Reading("embedding", "matrix", reason)
    tokens = getattr(model, "get_input_embeddings", lambda: None)()
    if module is not tokens and POSITION_WORDS.search(name):
        return Reading("position", "table", "Embedding of positions, by its name")
    return Reading("embedding", "table", "Embedding, fan-out its width, fan-in its entries")


def _is_head(model: nn.Module, name: str, module: nn.Linear) -> bool:
    """The output embedding of a language model, or the last Linear with one row a label."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        return module is head
    linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    labels = getattr(getattr(model, "config", None), "num_labels", module.out_features)
    return bool(linears) and name == linears[-1] and module.out_features == labels


def _gate_and_up(name: str) -> str:
    """Which rows are the gate's differs (halves, or every other one), so they are not cut."""
    fused = GATE_AND_UP.search(name.rpartition(".")[2])
    return "; gate and up in one, by its name, kept whole" if fused else ""


def _kernel(module: nn.modules.conv._ConvNd, tensor: Tensor) -> Reading:
    """A convolution is a map from a patch, (in * kernel), to (out); a transposed one is a map from
    (in) to a patch, (out * kernel), as where its stride is its size. Groups do not mix."""
    kind, groups = type(module).__name__, module.groups
    layout = as_stored(tensor, "kernel_transposed" if module.transposed else "kernel")
    patch = "kernel * {}" if layout.startswith("channels_last") else "{} * kernel"
    sides = (patch.format("out"), "in") if module.transposed else ("out", patch.format("in"))
    reason = f"{kind} kernel, read as ({', '.join(sides)})"
    if layout.startswith("channels_last"):
        reason += " in its channels_last memory"
    if groups > 1:
        reason += f" in each of its {groups} groups"
    return Reading("conv", layout, reason, groups)


def _bare(place: Place, tensor: Tensor, layouts: set[str]) -> Reading:
    """A parameter that no module type speaks for: by the products that read it."""
    _, module, attribute = place
    kind = type(module).__name__
    if tensor.numel() == max(tensor.shape):
        return Reading("vector", "vector", f"{attribute} of {kind}: one row or column, a vector")
    if isinstance(module, nn.MultiheadAttention) and tensor.ndim == 2:
        return Reading("hidden", "matrix", f"{attribute} of {kind}, stored (out, in)")
    if isinstance(module, nn.RNNBase) and tensor.ndim == 2:
        return Reading("hidden", "matrix", f"{attribute} of {kind}: its gates stacked, kept whole")
    source = "read by probing"
    if not layouts and tensor.ndim == 3 and hasattr(module, "is_transposed"):
        layouts = {"batch_transposed" if module.is_transposed else "batch"}
        source = "by its module's is_transposed"
    if len(layouts) == 1:
        (layout,) = layouts
        sides = "(in, out)" if layout.endswith("transposed") else "(out, in)"
        count = f"{tensor.shape[0]} matrices, each " if tensor.ndim == 3 else ""
        reason = f"{attribute} of {kind}: {count}stored {sides}, {source}"
        return Reading("hidden", layout, reason + _gate_and_up(attribute))
    if tensor.ndim == 2 and attribute.endswith("bias"):
        reason = f"{attribute} of {kind}: {tensor.shape[0]} vectors, by its name"
        return Reading("vector", "vectors", reason)
    return Reading("hidden", "matrix" if tensor.ndim == 2 else "kernel", NO_STRUCTURE)

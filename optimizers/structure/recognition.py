"""The role and layout of a parameter. In order of precedence they come from the module that owns
it, from what the model says of itself, from the forward pass, and from its name."""

import re
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from optimizers.structure.ends import EMBEDDINGS, Ends
from optimizers.structure.probe import normalises
from optimizers.structure.seen import Seen
from optimizers.views import as_stored

NO_STRUCTURE = "no structure found"

# Words in the names of bare parameters, and of embeddings other than tokens', that tell their role.
POSITION_WORDS = re.compile(
    r"(^|[._])(abs_|absolute_|rel_|relative_)?(pos|position|positions|positional|posemb|relative)"
    r"([._]|$)|(^|[._])(wpe|reg|register|registers|(cls|class|mask|reg|dist|distillation)_token)"
    r"s?([._]|$)"
)
ADAPTER = re.compile(r"lora_(embedding_)?([AB])\b")  # PEFT's names; B A is added to a frozen weight
# The parameters from which torch's weight_norm and spectral_norm compute a module's weight.
WEIGHT = ("weight", "weight_v", "weight_orig")

# Layouts of weights with more than two dimensions that a product reads as one matrix.
FOLDED = {"kernel": "(out, *in)", "kernel_transposed": "(in, *out)", "table": "(*in, out)"}

Place = tuple[str, nn.Module, str]  # a module's name, the module, the parameter's attribute


class Reading(NamedTuple):
    """groups: separate maps in one tensor (convolutions, experts); axis: 1 if side by side."""

    role: str
    layout: str
    reason: str
    groups: int = 1
    axis: int = 0


def places(model: nn.Module) -> dict[int, list[Place]]:
    """For each tensor (its id) all places that use it. The place of a parametrized one is the
    module whose weight is computed from it."""
    found: dict[int, list[Place]] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for module_name, module in modules.items():
        for attribute, tensor in module.named_parameters(recurse=False):
            place = (module_name, module, attribute)
            owner, inside, made = module_name.rpartition("parametrizations.")
            if isinstance(module, ParametrizationList) and inside and tensor.ndim > 1:
                weight = attribute in ("original", "original1")
                owner = owner.removesuffix(".")
                place = (owner, modules[owner], made if weight else f"{made}.{attribute}")
            found.setdefault(id(tensor), []).append(place)
    return found


def recognise(ends: Ends, where: list[Place], tensor: Tensor, seen: Seen) -> Reading:
    """What a parameter is, from the places that use it and from what the forward pass showed."""
    module_name, module, attribute = where[0]
    kind = type(module).__name__
    layouts = seen.layouts.get(id(tensor), set())
    if tensor.ndim <= 1 or (normalises(module) and _is_gain(ends, tensor, layouts)):
        told = "" if normalises(module) else ": a vector"
        return Reading("vector", "vector", f"{attribute} of {kind}{told}")
    if _embeds(ends, where, tensor, seen):
        return _embedding(ends, where, tensor)
    adapter = ADAPTER.search(f"{module_name}.{attribute}")
    if adapter and tensor.ndim == 2:
        rank = tensor.shape[0 if adapter[2] == "A" else 1]
        return Reading("hidden", "matrix", f"low-rank adapter (rank {rank}), by its name")
    if isinstance(module, nn.Linear) and attribute in WEIGHT:
        if id(tensor) in ends.heads:
            return Reading("head", "matrix", f"Linear {ends.heads[id(tensor)]}")
        if type(module).forward is not nn.Linear.forward and id(tensor) in seen.parts:
            reading = _parts(module, f"{attribute} of {kind}", tensor, seen)
            if reading.groups > 1 and not layouts:  # block diagonal
                return reading
        return Reading("hidden", "matrix", "Linear, stored (out, in)")
    if kind == "Conv1D" and hasattr(module, "nf"):
        return Reading("hidden", "transposed", "transformers' Conv1D, stored (in, out)")
    if isinstance(module, nn.modules.conv._ConvNd) and attribute in WEIGHT:
        return _kernel(module, tensor)
    if id(tensor) in ends.heads:
        layout = "matrix" if tensor.ndim == 2 else "kernel"
        if len(layouts) == 1:
            (layout,) = layouts
        return Reading("head", layout, f"{attribute} of {kind} {ends.heads[id(tensor)]}")
    if POSITION_WORDS.search(f"{module_name}.{attribute}"):
        if tensor.numel() == max(tensor.shape):
            return Reading("position", "vector", f"{attribute}: a learned token, by its name")
        return Reading("position", "table", f"{attribute}: a table of positions, by its name")
    return _bare(where[0], tensor, seen)


def _is_gain(ends: Ends, tensor: Tensor, layouts: set[str]) -> bool:
    """Whether a normalisation's parameter is a gain: no product reads it, and it is no end."""
    return not layouts and id(tensor) not in ends.heads and id(tensor) not in ends.tables


def _embeds(ends: Ends, where: list[Place], tensor: Tensor, seen: Seen) -> bool:
    """Whether its entries are looked up, by its module's type, the model's answer or the probe."""
    if any(isinstance(module, EMBEDDINGS) and name in WEIGHT for _, module, name in where):
        return True
    _, module, attribute = where[0]
    if isinstance(module, nn.Linear) or tensor.ndim != 2 or id(tensor) in seen.layouts:
        return False
    return id(tensor) in ends.tables or (
        id(tensor) in seen.tables and not attribute.endswith("bias")
    )


def _embedding(ends: Ends, where: list[Place], tensor: Tensor) -> Reading:
    place = next((p for p in where if isinstance(p[1], EMBEDDINGS)), where[0])
    name, module, attribute = place
    others = [p for p in where if not isinstance(p[1], EMBEDDINGS) and p is not place]
    if others or id(tensor) in ends.heads:
        head = others[0][0] if others else "the model's output"
        return Reading(
            "embedding", "matrix", f"Embedding tied to {head}, oriented as the head it also is"
        )
    known = isinstance(module, EMBEDDINGS)
    full = name if known else f"{name}.{attribute}"
    if id(tensor) not in ends.tables and POSITION_WORDS.search(full):
        what = "Embedding" if known else f"{attribute}: a table"
        return Reading("position", "table", f"{what} of positions, by its name")
    what = "Embedding" if known else f"{attribute} of {type(module).__name__}, looked up"
    return Reading("embedding", "table", f"{what}, fan-out its width, fan-in its entries")


def _kernel(module: nn.modules.conv._ConvNd, tensor: Tensor) -> Reading:
    """A convolution maps a patch, (in * kernel), to (out). A transposed one maps (in) to a patch,
    (out * kernel), as it does if its stride is its size. Groups do not mix."""
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


def _bare(place: Place, tensor: Tensor, seen: Seen) -> Reading:
    """A parameter without a telling module type, recognised by the products that read it."""
    _, module, attribute = place
    what = f"{attribute} of {type(module).__name__}"
    layouts, source = seen.layouts.get(id(tensor), set()), "read by probing"
    if tensor.numel() == max(tensor.shape):
        return Reading("vector", "vector", f"{what}: one row or column, a vector")
    if isinstance(module, nn.MultiheadAttention) and tensor.ndim == 2:
        return Reading("hidden", "matrix", f"{what}, stored (out, in)")
    if isinstance(module, nn.RNNBase) and tensor.ndim == 2:
        return Reading("hidden", "matrix", f"{what}: its gates stacked, kept whole")
    if not layouts and tensor.ndim == 3 and hasattr(module, "is_transposed"):
        layouts = {"batch_transposed" if module.is_transposed else "batch"}
        source = "by its module's is_transposed"
    if not layouts and id(tensor) in seen.parts:
        return _parts(module, what, tensor, seen)
    if len(layouts) == 1:
        (layout,) = layouts
        sides = FOLDED.get(layout) or ("(in, out)" if "transposed" in layout else "(out, in)")
        count = f"{tensor.shape[0]} matrices, each " if layout.startswith("batch") else ""
        return Reading("hidden", layout, f"{what}: {count}stored {sides}, {source}")
    if attribute.endswith("bias"):
        number = tensor.numel() // tensor.shape[-1]
        layout = "vectors" if tensor.ndim == 2 else "vector"
        return Reading("vector", layout, f"{what}: {number} vectors, by its name")
    return Reading("vector", "vector", NO_STRUCTURE)


def _parts(module: nn.Module, what: str, tensor: Tensor, seen: Seen) -> Reading:
    """A matrix that products read in parts: equal parts, each read alone, are separate maps.

    Parts of the inputs may be summed and so form one map; they count as separate maps only if
    another weight of the module is stored as that many (experts).
    """
    parts = seen.parts[id(tensor)]
    layout, cut, _, _ = next(iter(parts))
    if any(part[:2] != (layout, cut) for part in parts):
        return Reading("vector", "vector", NO_STRUCTURE)
    sides = "(in, out)" if layout == "transposed" else "(out, in)"
    of_outputs = cut == (layout == "transposed")
    others = {_count(p, seen) for p in module.parameters(recurse=False) if p is not tensor}
    count = _count(tensor, seen)
    if count and (of_outputs or count in others):
        reason = f"{what}: {count} maps in one, each stored {sides}, read by probing"
        return Reading("hidden", layout, reason, count, 0 if of_outputs else 1)
    shown = {i for _, _, first, size in parts for i in range(first, first + size)}
    if len(shown) == tensor.shape[cut]:
        reason = f"{what}: stored {sides}, read by probing in {len(parts)} parts, kept whole"
        return Reading("hidden", layout, reason)
    return Reading("vector", "vector", NO_STRUCTURE)


def _count(tensor: Tensor, seen: Seen) -> int | None:
    """The number of equal parts that a tensor is read in, each alone; None otherwise."""
    parts = seen.parts.get(id(tensor), set())
    sizes = {(cut, size) for _, cut, _, size in parts}
    if len(parts) < 2 or len(sizes) > 1:
        return None
    ((dimension, size),) = sizes
    aligned = all(first % size == 0 for _, _, first, _ in parts)
    whole = tensor.shape[dimension]
    return whole // size if aligned and whole % size == 0 else None

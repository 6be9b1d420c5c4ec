"""The role and matrix layout of each parameter of a model, each with the reason.

Both are read from module types, ties, shapes and the model's own answer on its ends. For attention
and bare parameters they also come from a probing forward pass. A mark or a name pattern overrides
this. A parameter that no product reads and nothing explains is no matrix: it has the role vector
and the reason NO_STRUCTURE.
"""

import difflib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from optimizers.structure.attention import Fact, HeadSlice, attention_facts, unread
from optimizers.structure.ends import ends
from optimizers.structure.gates import gate_facts
from optimizers.structure.inputs import smallest_input, unwrapped
from optimizers.structure.probe import probe
from optimizers.structure.recognition import NO_STRUCTURE, Reading, places, recognise
from optimizers.structure.seen import Seen
from optimizers.views import LAYOUTS, as_stored, fits

ROLES = ("hidden", "conv", "embedding", "position", "head", "vector")
# By role, the layouts to try in order if nothing else is known; the first that fits is taken.
LAYOUTS_OF = {
    "hidden": ("matrix", "batch", "kernel", "vector"),
    "head": ("matrix", "kernel", "vector"),
    "conv": ("kernel", "matrix", "vector"),
    "embedding": ("table", "kernel", "vector"),
    "position": ("table", "kernel", "vector"),
    "vector": ("vector",),
}
VECTORS = ("vector", "vectors")
MARK = "structure_mark"  # attribute of a marked tensor

Marked = TypeVar("Marked", Tensor, nn.Module)


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, role, layout (views.LAYOUTS) and the reason for both.

    attention: the name of the attention module that it projects to q, k or v for, with the rows of
    every head; output_heads: for the projection after attention, the number of heads that cut its
    fan-in; groups: the number of groups of a convolution, or of separate linear maps in one tensor
    (side by side if axis is 1); halves: the rows of a gate and of what it multiplies, in one
    weight.
    """

    name: str
    tensor: Tensor = field(repr=False)
    role: str
    layout: str
    reason: str
    attention: str | None = None
    slices: tuple[HeadSlice, ...] = ()
    output_heads: int | None = None
    groups: int = 1
    axis: int = 0
    halves: tuple[HeadSlice, ...] = ()


class Mark(NamedTuple):
    """What a user said a parameter is; None leaves it to recognition."""

    role: str | None
    layout: str | None


def mark(target: Marked, role: str | None = None, layout: str | None = None) -> Marked:
    """State what a parameter, or every parameter of a module, is; returns the target.

    role: one of ROLES; layout: one of views.LAYOUTS. The mark stays with the tensor, but not with a
    copy of it. Raises ValueError if either does not exist or does not fit the tensor.
    """
    tensors = {"": target} if isinstance(target, Tensor) else dict(target.named_parameters())
    for name, tensor in tensors.items():
        check(f"mark {name}".rstrip(), Mark(role, layout), tensor)
        setattr(tensor, MARK, Mark(role, layout))
    return target


def check(what: str, said: Mark, tensor: Tensor) -> None:
    """Raise ValueError, whose text begins with `what`, for an impossible role or layout."""
    if said == (None, None):
        raise ValueError(f"{what}: must say a role ({', '.join(ROLES)}), a layout, or both")
    for key, value, accepted in (("role", said.role, ROLES), ("layout", said.layout, LAYOUTS)):
        if value is not None and value not in accepted:
            raise ValueError(f"{what}: {key}={value}: must be one of {', '.join(accepted)}")
    if said.layout is not None and not fits(tensor, said.layout):
        shape = tuple(tensor.shape)
        stored = LAYOUTS[said.layout]
        raise ValueError(f"{what}: layout={said.layout} is {stored}; its shape is {shape}")


def describe(
    model: nn.Module,
    forward: Callable[[], Any] | None = None,
    patterns: Mapping[str, Any] | None = None,
) -> list[Parameter]:
    """Every trainable parameter once, in the order of model.named_parameters().

    forward: a call of the model on the smallest input, which probes it; transformers models, and
    others that take input_ids, need none.
    patterns: shell-style pattern on names -> role or {role, layout}; if several match, the last
    wins. A pattern overrides a mark, and a mark overrides recognition.
    Raises ValueError for a pattern that matches nothing or asks for the impossible.
    """
    inner = unwrapped(model)
    where, seen = places(model), _look(inner, forward)
    facts = gate_facts(model, seen) | attention_facts(model, seen)
    blind, known = unread(model, facts, seen), ends(inner, seen)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    said = _said(trainable, patterns or {})
    found = []
    for name, tensor in trainable.items():
        fact = facts.get(id(tensor))
        reading = recognise(known, where[id(tensor)], tensor, seen)
        if fact is None and reading.role == "hidden" and not reading.layout.startswith("batch"):
            fact = blind.get(id(tensor))
        if reading.reason == NO_STRUCTURE:
            fact = None
        if name in said:
            told = _told(reading, *said[name], tensor)
            if told.layout != reading.layout or told.role not in (reading.role, "hidden"):
                fact = None
            reading = told
        found.append(_parameter(name, tensor, reading, fact))
    return found


def _parameter(name: str, tensor: Tensor, reading: Reading, fact: Fact | None) -> Parameter:
    role, layout, reason, groups, axis = reading
    if fact is None:
        return Parameter(name, tensor, role, layout, reason, groups=groups, axis=axis)
    reason = f"{reason}; {fact.reason}"
    heads = (fact.attention, fact.slices, fact.output_heads)
    return Parameter(name, tensor, role, layout, reason, *heads, groups, axis, fact.halves)


def _look(model: nn.Module, forward: Callable[[], Any] | None) -> Seen:
    """What the probe sees; nothing, or only the beginning, if the model cannot be run."""
    try:
        forward = forward or smallest_input(model)
        seen = probe(model, forward) if forward is not None else Seen()
    except Exception as error:
        seen = Seen(error=error)
    if seen.error is not None:
        said = " ".join(f"{type(seen.error).__name__}: {seen.error}".split())[:300]
        warnings.warn(
            f"attention could not be probed, what was not seen of Q, K, V stays whole: {said}",
            stacklevel=3,
        )
    elif forward is None and not all(
        type(module).__module__.startswith("torch.nn.") for module in model.modules()
    ):
        warnings.warn(
            f"how {type(model).__name__} is called is not known (forward=), so no attention was "
            "looked for: Q, K, V stay whole",
            stacklevel=3,
        )
    return seen


def _said(
    trainable: Mapping[str, Tensor], patterns: Mapping[str, Any]
) -> dict[str, tuple[Mark, str]]:
    """By name, what patterns and marks say: (Mark, "pattern ..." or "marked")."""
    said = {n: (getattr(p, MARK), "marked") for n, p in trainable.items() if hasattr(p, MARK)}
    for pattern, value in patterns.items():
        what = f"structure={{{pattern}: {value}}}"
        rule = value if isinstance(value, Mapping) else {"role": value}
        if not rule.keys() <= {"role", "layout"}:
            raise ValueError(f"{what}: must be a role or {{role: …, layout: …}}")
        matched = [name for name in trainable if fnmatchcase(name, pattern)]
        if not matched:
            near = difflib.get_close_matches(pattern.replace("*", ""), trainable, 3, 0.0)
            raise ValueError(
                f"{what}: matches no trainable parameter; there are e.g. {', '.join(near)}"
            )
        for name in matched:
            told = Mark(rule.get("role"), rule.get("layout"))
            check(f"{what}: {name}", told, trainable[name])
            said[name] = (told, f"pattern {pattern}")
    return said


def _told(reading: Reading, told: Mark, origin: str, tensor: Tensor) -> Reading:
    """A recognised reading after a mark has changed it."""
    role = told.role or reading.role
    if told.role is None and reading.reason == NO_STRUCTURE:
        role = "vector" if told.layout in VECTORS else "hidden"  # a stated layout implies a matrix
    layout = told.layout
    if layout is None:
        kept = role == reading.role or (
            role in ("hidden", "conv", "head") and reading.layout not in ("table", *VECTORS)
        )
        fitting = next(name for name in LAYOUTS_OF[role] if fits(tensor, name))
        layout = reading.layout if kept else fitting
    layout = as_stored(tensor, layout)
    same = layout == reading.layout
    return Reading(role, layout, origin, *(reading[3:] if same else ()))

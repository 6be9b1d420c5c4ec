"""What the probe saw, as plain data, by the ids of weights."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Attention:
    """One call of attention: by weight (its id), the rows of each (part, head) that it provides.

    outputs: by weight, the columns of each head, for the linear map that follows.
    """

    rows: dict[int, dict[tuple[str, int], list[int]]] = field(default_factory=dict)
    outputs: dict[int, dict[int, list[int]]] = field(default_factory=dict)


@dataclass
class Seen:
    """What a forward pass showed, by the ids of weights.

    layouts: names of views.LAYOUTS in which products read the whole weight; more than one is
    possible; parts: the parts that products read, as (layout, cut dimension, first, length); gated:
    the rows of an activated half and of the half that it multiplies; tables: weights with entries
    looked up; outputs: weights whose rows are the model's output; used: weights that any call of
    torch took; error: the error that ended the pass early.
    """

    attentions: list[Attention] = field(default_factory=list)
    layouts: dict[int, set[str]] = field(default_factory=dict)
    parts: dict[int, set[tuple[str, int, int, int]]] = field(default_factory=dict)
    gated: dict[int, set[tuple[tuple[int, ...], tuple[int, ...]]]] = field(default_factory=dict)
    tables: set[int] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    used: set[int] = field(default_factory=set)
    error: Exception | None = None

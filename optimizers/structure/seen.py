"""What the probe saw: plain data, by the ids of weights."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Attention:
    """One call of attention: by weight (its id) the rows of each (part, head) it gives.

    outputs: by weight the columns of each head, for the linear map that follows.
    """

    rows: dict[int, dict[tuple[str, int], list[int]]] = field(default_factory=dict)
    outputs: dict[int, dict[int, list[int]]] = field(default_factory=dict)


@dataclass
class Seen:
    """What a forward pass showed, by the ids of weights.

    layouts: names of views.LAYOUTS, how products read it whole, both where it was in two ways;
    parts: where products read a part, (layout, dimension that is cut, first, length);
    gated: the rows of an activated half and of the one it multiplies;
    tables: where entries were looked up; outputs: whose rows are what the model gives;
    used: what any call of torch took;
    error: what ended the pass before its end.
    """

    attentions: list[Attention] = field(default_factory=list)
    layouts: dict[int, set[str]] = field(default_factory=dict)
    parts: dict[int, set[tuple[str, int, int, int]]] = field(default_factory=dict)
    gated: dict[int, set[tuple[tuple[int, ...], tuple[int, ...]]]] = field(default_factory=dict)
    tables: set[int] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    used: set[int] = field(default_factory=set)
    error: Exception | None = None

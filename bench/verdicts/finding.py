"""One measured number with a bearing on a claim."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One measured number with a bearing on a claim.

    condition: where it was measured; low, high: its 95 % interval or range, equal to the value if
    that is exact, or None; holds: whether the claim holds by it, if the claim's rule does not
    decide that; in_part: the evidence's own verdict is that it depends; undecided: why it can
    decide nothing; missing: what must be run first; records: the files behind it, relative to
    results/.
    """

    condition: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    holds: bool | None = None
    in_part: bool = False
    undecided: str | None = None
    missing: str | None = None
    note: str = ""
    records: list[str] = field(default_factory=list)

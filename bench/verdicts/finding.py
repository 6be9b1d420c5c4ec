"""One measured number that bears on a claim."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One measured number that bears on a claim.

    condition: where it was found; low, high: its 95 % interval or range, equal to the value where
    it is exact, or None; holds: whether the claim holds by it, where that is not for the claim's
    rule to say; in_part: the evidence's own verdict is that it depends; undecided: why it can
    decide nothing; missing: what would have to be run first; records: the files it comes from,
    below results/.
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

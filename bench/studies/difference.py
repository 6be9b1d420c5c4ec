"""How arms differ from the baseline, tested over all arms of a condition together."""

from dataclasses import dataclass

from bench.studies import stats
from bench.studies.stats import Equivalence, Estimate
from bench.studies.study import Study

LEVEL = 0.05  # level of the tests, over all arms of a condition together
BEYOND, SMALLER, EQUAL, STRADDLES = "beyond", "smaller", "equal", "straddles"
SIZE_OPEN, UNSHOWN = "size open", "unshown"  # the two cases of STRADDLES


@dataclass(frozen=True)
class Difference:
    """An arm's test loss minus the baseline's, paired by seed.

    p: that of `test` for "no difference"; p_beyond: that for "no larger than the margin"; both are
    corrected by Holm over the arms; equivalence and p_beyond: None without a margin; seeds: the
    number of seeds that would show a difference of this size four times in five.
    """

    estimate: Estimate
    test: str
    p: float
    equivalence: Equivalence | None
    seeds: int | None
    p_beyond: float | None = None

    @property
    def small(self) -> bool:
        """Whether the difference is shown to lie within the margin."""
        return self.equivalence is not None and self.equivalence.equal

    @property
    def outcome(self) -> str:
        """What is shown relative to the margin (without a margin, relative to 0).

        beyond: the difference is larger than it; smaller: there is a difference, within it; equal:
        it is within, and none is shown; straddles: the evidence is not enough for either.
        """
        shown = self.p < LEVEL
        if self.p_beyond is None:
            return BEYOND if shown else STRADDLES
        if self.p_beyond < LEVEL:
            return BEYOND
        if self.small:
            return SMALLER if shown else EQUAL
        return STRADDLES

    @property
    def case(self) -> str:
        """The outcome, and of one that straddles the margin whether a difference is shown."""
        if self.outcome != STRADDLES:
            return self.outcome
        return SIZE_OPEN if self.p < LEVEL else UNSHOWN

    @property
    def side(self) -> str:
        return "lower" if self.estimate.mean < 0 else "higher"

    def verdict(self) -> str:
        """The outcome in words, for tables."""
        within = f"within ±{self.equivalence.margin:g}" if self.equivalence else ""
        needed = f"; to show one of this size takes {self.seeds:,} seeds" if self.seeds else ""
        return {
            BEYOND: self.side,
            SMALLER: f"{self.side}, but {within}",
            EQUAL: f"equal {within}",
            SIZE_OPEN: f"{self.side}, perhaps {within}",
            UNSHOWN: f"no difference shown{needed}",
        }[self.case]


def between(
    losses: dict[str, dict[int, float]], declared: Study, names: list[str]
) -> dict[str, Difference]:
    """All arms' differences from the baseline, corrected together; losses: by arm and seed."""
    base = losses.get(declared.baseline)
    others = [name for name in names if name != declared.baseline]
    if not base:
        return {}
    paired = {name: stats.paired(losses[name], base) for name in others}
    paired = {name: values for name, values in paired.items() if len(values)}
    tests = {name: stats.p_value(values) for name, values in paired.items()}
    adjusted = stats.holm([p for p, _ in tests.values()])
    margin = declared.margin
    beyond = stats.holm([stats.p_beyond(values, margin or 0.0) for values in paired.values()])
    return {
        name: Difference(
            stats.mean_interval(values),
            tests[name][1],
            p,
            stats.equivalence(values, margin) if margin else None,
            stats.seeds_needed(values),
            larger if margin else None,
        )
        for (name, values), p, larger in zip(paired.items(), adjusted, beyond, strict=True)
    }

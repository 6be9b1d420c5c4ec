"""What an arm differs by from the baseline, tested over all arms of a condition together."""

from dataclasses import dataclass

from bench.studies import stats
from bench.studies.stats import Equivalence, Estimate
from bench.studies.study import Study

LEVEL = 0.05  # of the tests, over all arms of a condition together
BEYOND, SMALLER, EQUAL, STRADDLES = "beyond", "smaller", "equal", "straddles"


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline, paired by seed, in the test loss.

    p: of `test` against no difference, p_beyond: against one that is no larger than the margin;
    both corrected by Holm over the arms; equivalence and p_beyond: None without a margin; seeds:
    with which a difference of this size would be found four times in five.
    """

    estimate: Estimate
    test: str
    p: float
    equivalence: Equivalence | None
    seeds: int | None
    p_beyond: float | None = None

    @property
    def small(self) -> bool:
        """Whether it is shown to lie within the margin."""
        return self.equivalence is not None and self.equivalence.equal

    @property
    def outcome(self) -> str:
        """What is shown against the margin (without one, against 0).

        beyond: a difference larger than it; smaller: one, and smaller than it; equal: none that is
        as large; straddles: not enough evidence, as it may be either.
        """
        shown = self.p < LEVEL
        if self.p_beyond is None:
            return BEYOND if shown else STRADDLES
        if self.p_beyond < LEVEL:
            return BEYOND
        if self.small:
            return SMALLER if shown else EQUAL
        return STRADDLES

    def verdict(self) -> str:
        """In words, for tables."""
        within = f"within ±{self.equivalence.margin:g}" if self.equivalence else ""
        side = "lower" if self.estimate.mean < 0 else "higher"
        match self.outcome:
            case "beyond":
                return side
            case "smaller":
                return f"{side}, but {within}"
            case "equal":
                return f"equal {within}"
        if self.p < LEVEL:
            return f"{side}, perhaps {within}"
        needed = f"; to show one of this size takes {self.seeds:,} seeds" if self.seeds else ""
        return f"no difference shown{needed}"


def between(
    losses: dict[str, dict[int, float]], declared: Study, names: list[str]
) -> dict[str, Difference]:
    """Of all arms but the baseline, corrected together; losses: by arm and seed."""
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

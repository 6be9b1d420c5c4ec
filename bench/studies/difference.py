"""What an arm differs by from the baseline, tested over all arms of a condition together."""

from dataclasses import dataclass

from bench.studies import stats
from bench.studies.stats import Equivalence, Estimate
from bench.studies.study import Study

LEVEL = 0.05  # of the tests, over all arms of a condition together


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline, paired by seed, in the test loss.

    p: of `test`, corrected by Holm over the arms; equivalence: None without a margin; seeds: with
    which a difference of this size would be found four times in five.
    """

    estimate: Estimate
    test: str
    p: float
    equivalence: Equivalence | None
    seeds: int | None

    @property
    def small(self) -> bool:
        """Whether it is shown to lie within the margin."""
        return self.equivalence is not None and self.equivalence.equal

    def verdict(self) -> str:
        """In words, for tables."""
        within = f"within ±{self.equivalence.margin:g}" if self.equivalence else ""
        if self.p < LEVEL:
            side = "lower" if self.estimate.mean < 0 else "higher"
            return f"{side}, but {within}" if self.small else side
        if self.small:
            return f"equal {within}"
        needed = f"; {self.seeds:,} seeds would show one of this size" if self.seeds else ""
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
    return {
        name: Difference(
            stats.mean_interval(values),
            tests[name][1],
            p,
            stats.equivalence(values, declared.margin) if declared.margin else None,
            stats.seeds_needed(values),
        )
        for (name, values), p in zip(paired.items(), adjusted, strict=True)
    }

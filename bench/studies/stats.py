"""Statistics of paired seeds: differences with intervals, tests, equivalence, noise floor.

Pure functions on the values of finished runs. A difference is between two arms at the same seed
(same data order, same initial weights); differences of different seeds are taken as independent.
Every function that takes differences raises ValueError for one that is not finite.
"""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # imports lazily: a single training run needs none of it
from numpy.typing import ArrayLike, NDArray

RANKS_FROM = 8  # pairs
MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values with its two-sided interval, in the unit of the values.

    With one value the interval is infinite; with none the mean is unknown (nan), too.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Equivalence:
    """Whether a mean difference is shown to be smaller than `margin` in size."""

    equal: bool
    interval: Estimate  # 90 %
    margin: float


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> NDArray[np.float64]:
    """Differences ours - theirs over the seeds that both have, in order of seed.

    Callers leave out runs without a finite value and can say so; here such a value is a ValueError.
    """
    for seed, value in (*ours.items(), *theirs.items()):
        if value is None or not math.isfinite(value):
            raise ValueError(f"seed {seed} has the value {value}: leave it out before pairing")
    both = sorted(ours.keys() & theirs.keys())
    return np.array([ours[seed] - theirs[seed] for seed in both], dtype=np.float64)


def mean_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean and its Student t interval, which covers the true mean with probability `level`."""
    mean, error, n = _mean_and_error(values)
    if n < 2:
        return Estimate(mean, -math.inf, math.inf, n)
    half_width = float(scipy.stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Estimate(mean, mean - half_width, mean + half_width, n)


def p_value(differences: ArrayLike) -> tuple[float, str]:
    """Two-sided p-value of "no difference" and the name of the test; nan below two pairs.

    "paired t" below 8 pairs, "signed rank" (Wilcoxon) from 8 on, which does not require normal
    differences and is exact up to 50 pairs without ties or zeros. Below 8 pairs it cannot serve:
    its smallest p-value, 2 / 2^n, is 0.0625 with 5 pairs and so never reaches 5 %; with 8 it is
    0.0078, which leaves room for Holm's correction over six arms.
    """
    mean, error, n = _mean_and_error(differences)
    test = "signed rank" if n >= RANKS_FROM else "paired t"
    if n < 2:
        return math.nan, test
    if not np.any(differences):
        return 1.0, test
    if n >= RANKS_FROM:
        return float(scipy.stats.wilcoxon(differences).pvalue), test
    if error == 0:
        return 0.0, test
    return float(2 * scipy.stats.t.sf(abs(mean) / error, n - 1)), test


def unpaired(ours: ArrayLike, theirs: ArrayLike) -> tuple[Estimate, float]:
    """The difference ours - theirs of two means with its 95 % interval, and p of "no difference".

    By Welch's t test (Welch 1947, Biometrika 34, 28-35), for independent values whose spreads may
    differ. The estimate's n is that of the smaller sample; if that is one value, the interval is
    infinite and p is nan.
    """
    mean, error, n = _mean_and_error(ours)
    other_mean, other_error, other_n = _mean_and_error(theirs)
    difference, least = mean - other_mean, min(n, other_n)
    if least < 2:
        return Estimate(difference, -math.inf, math.inf, least), math.nan
    both = error**2 + other_error**2
    if both == 0:
        return Estimate(difference, difference, difference, least), float(difference == 0)
    freedom = both**2 / (error**4 / (n - 1) + other_error**4 / (other_n - 1))
    half_width = float(scipy.stats.t.ppf(0.975, freedom)) * math.sqrt(both)
    p = float(2 * scipy.stats.t.sf(abs(difference) / math.sqrt(both), freedom))
    return Estimate(difference, difference - half_width, difference + half_width, least), p


def p_beyond(differences: ArrayLike, margin: float) -> float:
    """p-value of "no larger than margin in size", by a t test; nan below two pairs.

    One-sided, on the side of the observed mean, and doubled because that side was not fixed before.
    """
    mean, error, n = _mean_and_error(differences)
    if n < 2:
        return math.nan
    excess = abs(mean) - margin
    if error == 0:
        return 0.0 if excess > 0 else 1.0
    return min(1.0, 2 * float(scipy.stats.t.sf(excess / error, n - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the same order; nan stays nan and does not count as a hypothesis.

    Rejecting at adjusted values of at most α has a family-wise error probability of at most α, for
    any dependence of the tests (Holm 1979, Scand. J. Statist. 6, 65-70); arms that share a control
    are dependent.
    """
    adjusted = np.array(p_values, dtype=np.float64)
    order = np.argsort(adjusted)[: np.count_nonzero(~np.isnan(adjusted))]  # nan sorts last
    scaled = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


def equivalence(differences: ArrayLike, margin: float) -> Equivalence:
    """Two one-sided t tests at 5 % (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657-680).

    Equal only if the 90 % interval lies strictly inside (-margin, margin). A true difference as
    large as the margin is called equal at most 5 % of the time, if the margin was fixed before the
    differences were seen. Raises ValueError unless the margin is positive.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin}: an equivalence test needs a positive margin")
    interval = mean_interval(differences, level=0.9)
    return Equivalence(-margin < interval.low and interval.high < margin, interval, margin)


def seeds_needed(differences: ArrayLike, power: float = 0.8, level: float = 0.05) -> int | None:
    """The paired seeds that a paired t test would need to show a difference of the observed size.

    This is the smallest number at which the two-sided test at `level` rejects with probability
    `power` if the true mean and spread are the observed ones: a guide for planning, uncertain
    itself if it rests on few pairs. The signed rank test needs about π/3 times as many for normal
    differences. None if the mean is 0, with fewer than two pairs, and above 100,000 seeds.
    """
    mean, error, n = _mean_and_error(differences)
    if n < 2 or mean == 0:
        return None
    if error == 0:
        return 2
    effect = mean / (error * math.sqrt(n))

    def power_with(seeds: int) -> float:
        # The square of the noncentral t. Its F combines both tails, and scipy's F stays finite for
        # large effects, where scipy's noncentral t gives nan.
        critical = scipy.stats.t.isf(level / 2, seeds - 1) ** 2
        return scipy.stats.ncf.sf(critical, 1, seeds - 1, seeds * effect**2)

    candidates = range(2, MOST_SEEDS + 1)  # power grows with the seeds
    found = bisect.bisect_left(candidates, power, key=power_with)
    return candidates[found] if found < len(candidates) else None


def noise_floor(differences: ArrayLike) -> float:
    """How far apart one pair of runs ends, at 95 %, if only rounding distinguishes them.

    `differences` are those of A/A pairs: the same arm and seed, with initial weights perturbed by
    1e-6. The size |A - A'| of one further pair stays below the floor with probability 95 %, so a
    single pair's difference below it says nothing about the arms. A perturbation has no direction,
    hence the mean is taken as zero: root mean square times the t quantile with n degrees of
    freedom, the half width of a prediction interval. Infinite without pairs.
    """
    values = _finite(differences)
    if not len(values):
        return math.inf
    return float(np.sqrt(np.mean(values**2)) * scipy.stats.t.ppf(0.975, len(values)))


def censored_median(values: Iterable[float | None]) -> float | None:
    """The median, with None ("not reached") above all values; None if it is the median itself."""
    reached = [math.inf if value is None else value for value in values]
    median = float(np.median(reached)) if reached else math.inf
    return median if math.isfinite(median) else None


def _mean_and_error(values: ArrayLike) -> tuple[float, float, int]:
    """Mean, its standard error (nan below two values) and number of values."""
    values = _finite(values)
    n = len(values)
    if n < 2:
        return (float(values[0]) if n else math.nan), math.nan, n
    if np.ptp(values) == 0:  # np.std rounds: equal values would get a spread of about 1e-17
        return float(values[0]), 0.0, n
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(n)), n


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"not a finite number among {array.tolist()}")
    return array

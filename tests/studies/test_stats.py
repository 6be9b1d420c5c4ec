"""Statistics: known values, laws, and error and coverage rates as simulated.

A simulated rate is held against exact binomial quantiles at 99.9 % for its number of trials.
Beside each, a well-known shortcut (no correction, normal quantiles, "not significant, hence equal")
leaves the same bounds: the trials are enough to see the mistake.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.studies.stats import (
    Estimate,
    censored_median,
    equivalence,
    holm,
    mean_interval,
    noise_floor,
    p_value,
    paired,
    seeds_needed,
    unpaired,
)

TRIALS = 4000
SEEDS = 5
# Student 1908, Biometrika 6, 1-25: hours of sleep gained by ten patients with each of two drugs.
FIRST_DRUG = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
SECOND_DRUG = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))

numbers = st.floats(-100, 100).map(lambda x: round(x, 6))
samples = st.lists(numbers, min_size=2, max_size=12)
losses = st.dictionaries(st.integers(0, 9), numbers, max_size=8)
p_values = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=8)


def bounds(rate: float, trials: int = TRIALS) -> tuple[float, float]:
    """Where a simulated rate lies with probability 99.9 % if the true one is `rate`."""
    low, high = scipy_stats.binom.ppf([0.0005, 0.9995], trials, rate) / trials
    return low, high


def ceiling(rate: float, trials: int = TRIALS) -> float:
    """What a simulated rate exceeds with probability below 0.1 % if the true one is `rate`."""
    return scipy_stats.binom.ppf(0.999, trials, rate) / trials


def draws(seeds: int = SEEDS, mean: float = 0.0, spread: float = 1.0, trials: int = TRIALS):
    """Normal differences, one row a trial."""
    return np.random.default_rng(0).normal(mean, spread, (trials, seeds))


def standardized(effect: float, n: int = 6) -> np.ndarray:
    """n differences whose mean is `effect` times their standard deviation."""
    ramp = np.arange(n) - (n - 1) / 2
    return ramp / np.std(ramp, ddof=1) + effect


def test_paired_takes_the_seeds_both_have_in_order():
    differences = paired({1337: 1.0, 42: 5.0, 7: 9.0}, {42: 2.0, 1337: 4.0, 2: 0.0})
    assert differences.tolist() == [3.0, -3.0]
    assert paired({1: 1.0}, {2: 1.0}).tolist() == []


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_run_without_a_finite_value_is_refused_by_its_seed(value):
    with pytest.raises(ValueError, match="seed 4"):
        paired({1: 1.0, 4: value}, {1: 2.0})
    with pytest.raises(ValueError, match="not a finite number"):
        mean_interval([1.0, value])


def test_students_own_example():
    """The interval as R's `t.test(paired = TRUE)` gives it; for p, few enough pairs for t."""
    found = mean_interval(paired(SECOND_DRUG, FIRST_DRUG))
    assert found.mean == pytest.approx(1.58) and found.n == 10
    assert (found.low, found.high) == pytest.approx((0.7001, 2.4599), abs=1e-4)
    seven = paired(SECOND_DRUG, FIRST_DRUG)[:7]
    assert p_value(seven) == (pytest.approx(scipy_stats.ttest_1samp(seven, 0).pvalue), "paired t")


def test_interval_and_p_value_at_their_edges():
    assert mean_interval([2.0]) == Estimate(2.0, -math.inf, math.inf, 1)
    assert mean_interval([0.1] * 3) == Estimate(0.1, 0.1, 0.1, 3)
    nothing = mean_interval([])
    assert math.isnan(nothing.mean) and (nothing.low, nothing.high) == (-math.inf, math.inf)
    assert math.isnan(p_value([])[0]) and math.isnan(p_value([1.0])[0])
    assert p_value([0.0] * 5) == (1.0, "paired t") and p_value([0.0] * 8) == (1.0, "signed rank")
    assert p_value([0.1] * 3) == (0.0, "paired t")


def test_ranks_serve_from_eight_pairs_on():
    """All signs alike: of 2^8 sign patterns two are as extreme, with ties and zeros too."""
    assert p_value(np.arange(1, 8))[1] == "paired t"
    assert p_value(np.arange(1, 9)) == (2 / 2**8, "signed rank")
    assert p_value([1, 1, 2, 2, 3, 3, 4, 4]) == (2 / 2**8, "signed rank")
    assert p_value([0, 1, 2, 3, 4, 5, 6, 7]) == (2 / 2**7, "signed rank")
    # By hand: the negative ranks 1 and 2 sum to 3; 5 of 2^8 subsets of the ranks sum to at most 3.
    assert p_value([-1, -2, 3, 4, 5, 6, 7, 8])[0] == pytest.approx(2 * 5 / 2**8)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.4]) == pytest.approx([0.8, 0.8])
    first, second, third = holm([0.02, math.nan, 0.03])
    assert (first, third) == pytest.approx((0.04, 0.04)) and math.isnan(second)
    assert holm([]) == []


def test_equivalence_needs_the_whole_interval_strictly_inside():
    differences = [-0.1, 0.0, 0.1, 0.2, 0.05]
    edge = mean_interval(differences, level=0.9).high
    found = equivalence(differences, 1.01 * edge)
    assert found.equal and found.interval.high == edge and found.margin == 1.01 * edge
    assert not equivalence(differences, edge).equal
    assert not equivalence(np.negative(differences), edge).equal
    assert not equivalence([0.0], 1.0).equal, "one pair shows nothing"
    assert equivalence([0.0, 0.0], 1.0).equal
    for margin in (0, -1, math.nan):
        with pytest.raises(ValueError, match="margin"):
            equivalence(differences, margin)


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_for_cohens_small_medium_and_large_effect(effect, seeds):
    """The sample sizes that G*Power gives for a two-sided paired t test at 5 %, power 80 %."""
    assert seeds_needed(standardized(effect)) == seeds
    assert seeds_needed(-1e-3 * standardized(effect)) == seeds


def test_seeds_needed_at_its_edges():
    assert seeds_needed([]) is seeds_needed([1.0]) is seeds_needed([-1.0, 1.0]) is None
    assert seeds_needed(standardized(0.009)) > 90_000
    assert seeds_needed(standardized(0.008)) is None
    assert seeds_needed([0.1] * 3) == seeds_needed(standardized(1e9)) == 2


def test_noise_floor_by_hand():
    assert noise_floor([3.0, -4.0]) == pytest.approx(math.sqrt(12.5) * 4.302653, rel=1e-6)
    assert noise_floor([0.0] * 3) == 0.0 and noise_floor([]) == math.inf


def test_censored_median():
    assert censored_median([300, None, 100]) == 300
    assert censored_median([100, 200, 300, None]) == 250
    assert censored_median([100, None]) is None, "half of the runs never reach it"
    assert censored_median([None, None, 100]) is censored_median([]) is None


@given(p_values)
def test_holm_laws(raw):
    adjusted = holm(raw)
    known = [(p, q) for p, q in zip(raw, adjusted, strict=True) if not math.isnan(p)]
    assert [math.isnan(p) for p in raw] == [math.isnan(q) for q in adjusted]
    assert all(p <= q <= 1 for p, q in known)
    assert all(q1 <= q2 for (_, q1), (_, q2) in itertools.pairwise(sorted(known)))
    np.testing.assert_equal(holm(raw[::-1]), adjusted[::-1])
    np.testing.assert_equal(holm([*raw, math.nan])[:-1], adjusted)


@given(samples, st.floats(0.5, 0.99))
def test_interval_laws(values, level):
    found = mean_interval(values, level)
    wider = mean_interval(values, (1 + level) / 2)
    assert wider.low <= found.low <= found.mean <= found.high <= wider.high


@given(samples.filter(lambda values: len(values) < 8))
def test_p_value_is_below_five_percent_where_the_interval_leaves_zero_out(values):
    found, (p, _) = mean_interval(values), p_value(values)
    if abs(p - 0.05) > 1e-9:
        assert (p < 0.05) == (found.low > 0 or found.high < 0)


@given(losses, losses)
def test_the_order_of_the_two_arms_changes_the_sign_alone(ours, theirs):
    there, back = paired(ours, theirs), paired(theirs, ours)
    np.testing.assert_array_equal(there, -back)
    np.testing.assert_equal(p_value(there), p_value(back))
    assert seeds_needed(there) == seeds_needed(back) and noise_floor(there) == noise_floor(back)


def family(effects: tuple[float, ...]) -> np.ndarray:
    """p-values (trials, arms) against one control that all arms share, by five paired seeds.

    A run's loss is the sum of its seed's part (the largest), its arm's effect and its own noise.
    """
    rng = np.random.default_rng(0)
    loss_tas = 4 + rng.normal(0, 10, (TRIALS, 1, SEEDS)) + rng.normal(0, 1, (TRIALS, 4, SEEDS))
    loss_tas[:, 1:] += np.array(effects)[:, None]
    trials = [[dict(enumerate(seeds)) for seeds in arms] for arms in loss_tas.tolist()]
    return np.array([[p_value(paired(arm, arms[0]))[0] for arm in arms[1:]] for arms in trials])


def test_with_no_effect_anywhere_the_family_errs_in_at_most_five_percent():
    p_ta = family((0, 0, 0))
    corrected = np.array([holm(row) for row in p_ta.tolist()])
    for arm in range(3):
        assert bounds(0.05)[0] <= np.mean(p_ta[:, arm] < 0.05) <= bounds(0.05)[1]
    assert np.mean((corrected < 0.05).any(axis=1)) <= ceiling(0.05)
    assert np.mean((p_ta < 0.05).any(axis=1)) > ceiling(0.05), "uncorrected, it would"


def test_beside_true_effects_an_arm_without_one_errs_in_five_percent():
    """Both effects are found, so Holm leaves the third arm its whole 5 %; Bonferroni would not."""
    p_ta = family((9, -9, 0))
    corrected = np.array([holm(row) for row in p_ta.tolist()])
    assert np.mean(corrected[:, :2] < 0.05) > 0.99
    assert bounds(0.05)[0] <= np.mean(corrected[:, 2] < 0.05) <= bounds(0.05)[1]
    assert np.mean(3 * p_ta[:, 2] < 0.05) < bounds(0.05)[0]


def test_the_signed_rank_test_errs_as_often_as_its_exact_distribution_says():
    """Losses far from normal; with 8 pairs 10 of 2^8 sign patterns lie below 5 %, so 3.9 %."""
    trials = 2000
    ours, theirs = np.random.default_rng(0).lognormal(sigma=2, size=(2, trials, 8))
    errors = np.mean([p_value(row)[0] < 0.05 for row in ours - theirs])
    assert errors <= ceiling(0.05, trials)
    assert bounds(10 / 2**8, trials)[0] <= errors <= bounds(10 / 2**8, trials)[1]


@pytest.mark.parametrize("level", [0.95, 0.9])
def test_intervals_cover_the_true_mean_at_their_level(level):
    found = [mean_interval(row, level) for row in draws(mean=3, spread=2)]
    covered = np.mean([each.low <= 3 <= each.high for each in found])
    assert bounds(level)[0] <= covered <= bounds(level)[1]
    shrink = scipy_stats.norm.ppf((1 + level) / 2) / scipy_stats.t.ppf((1 + level) / 2, SEEDS - 1)
    by_normal = np.mean([abs(3 - each.mean) <= shrink * (each.high - each.mean) for each in found])
    assert by_normal < bounds(level)[0], "normal quantiles are too narrow for five seeds"


def test_equivalence_confirms_a_false_equality_in_at_most_five_percent():
    precise = np.mean([equivalence(row, margin=1).equal for row in draws(mean=1, spread=0.1)])
    assert bounds(0.05)[0] <= precise <= bounds(0.05)[1], "at the margin the test is exact"
    noisy = draws(mean=1, spread=1)
    assert np.mean([equivalence(row, margin=1).equal for row in noisy]) <= ceiling(0.05)
    insignificant = np.mean([p_value(row)[0] >= 0.05 for row in noisy])
    assert insignificant > ceiling(0.05), "to take 'not significant' for 'equal' errs more often"


def test_equivalence_confirms_a_true_equality_when_the_margin_is_wide():
    differences = draws(spread=0.3, trials=1000)
    assert np.mean([equivalence(row, margin=1).equal for row in differences]) > 0.99
    assert np.mean([equivalence(row, margin=0.1).equal for row in differences]) < 0.05


@pytest.mark.parametrize("effect", [0.8, 1.2])
def test_the_seeds_needed_give_the_power_and_one_fewer_does_not(effect):
    trials = 50_000
    n = seeds_needed(standardized(effect))

    def power(seeds: int) -> float:
        differences = draws(seeds, mean=effect, trials=trials)
        return np.mean(scipy_stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05)

    assert bounds(0.8, trials)[0] <= power(n) < 0.85
    assert power(n - 1) < bounds(0.8, trials)[0]


@pytest.mark.parametrize("pairs", [1, 5])
def test_the_noise_floor_holds_for_a_further_pair(pairs):
    *seen, unseen = draws(pairs + 1).T
    floors = np.array([noise_floor(row) for row in np.transpose(seen)])
    assert bounds(0.95)[0] <= np.mean(np.abs(unseen) <= floors) <= bounds(0.95)[1]
    by_normal = floors * scipy_stats.norm.ppf(0.975) / scipy_stats.t.ppf(0.975, pairs)
    assert np.mean(np.abs(unseen) <= by_normal) < bounds(0.95)[0]


def test_unpaired_is_welchs_test():
    ours, theirs = [4.1, 4.3, 3.9, 4.0], [3.2, 3.9, 3.1]
    found, p = unpaired(ours, theirs)
    known = scipy_stats.ttest_ind(ours, theirs, equal_var=False)
    interval = known.confidence_interval(0.95)
    assert p == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs)) and found.n == 3


def test_unpaired_of_one_value_has_no_interval_and_of_equal_ones_no_doubt():
    found, p = unpaired([1.0, 2.0], [3.0])
    assert (found.mean, found.n) == (-1.5, 1) and math.isinf(found.low) and math.isnan(p)
    assert unpaired([1.0, 1.0], [1.0, 1.0]) == (Estimate(0.0, 0.0, 0.0, 2), 1.0)
    assert unpaired([2.0, 2.0], [1.0, 1.0])[1] == 0.0

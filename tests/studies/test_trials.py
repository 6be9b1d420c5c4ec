"""The trials of a search: their order, and what they found."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.studies.trials import Found, Trial, expected_best, ranked
from tests.helpers.searches import BLOCK, searched


def test_a_diverged_trial_ranks_last():
    points = [{"rate": 1.0}, {"rate": 2.0}, {"rate": 3.0}]
    assert ranked(points, [math.inf, 2.0, 1.0]) == points[::-1]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.data())
def test_the_expected_best_is_the_mean_over_all_choices(losses, data):
    trials = data.draw(st.integers(1, len(losses)))
    every = [min(chosen) for chosen in itertools.combinations(losses, trials)]
    assert expected_best(losses, trials) == pytest.approx(np.mean(every))


def test_the_expected_best_of_trials_that_may_diverge():
    assert expected_best([1.0, math.inf], 1) == math.inf
    assert expected_best([1.0, math.inf], 2) == 1.0


@pytest.mark.parametrize(("rate", "end"), [(0.01, "lower"), (100, "upper"), (1, None)])
def test_better_trials_that_crowd_at_an_end_are_flagged(rate, end):
    declared = searched(trials=8, carry={}).search
    centre = BLOCK["search"]["centres"]["a"]
    studies = {
        seed: [
            Trial(point, abs(math.log(point["rate"] / rate)))
            for point in declared.points("a", centre, seed)
        ]
        for seed in range(5)
    }
    assert Found(studies).crowded() == end

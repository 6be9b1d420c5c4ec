"""The protocol on made-up optimizers: how often it errs, and what it can tell apart."""

import pytest

from bench.studies.simulation import World, borrowing, independent, one_search, repeat

APART = {"rate": 0.7, "relative": 0.7, "averaging": 0.3, "decay": 0.7, "warmup": 0.7}
REPETITIONS = 120  # scripts/simulate_protocol.py has 2,000


@pytest.fixture(scope="module")
def same():
    return repeat(independent, World(offsets=APART), REPETITIONS)


def test_equal_optimizers_whose_optima_lie_apart_are_seldom_called_different(same):
    assert same.real <= 0.05 + 3 * same.error
    assert same.beyond <= 0.01
    assert abs(same.mean) < 0.004


def test_intervals_hold_what_the_searches_find_on_average(same):
    assert abs(same.covers - 0.95) <= 3 * same.error


def test_a_difference_of_a_twentieth_of_a_nat_is_found():
    found = repeat(independent, World(gain=0.05, offsets=APART), REPETITIONS)
    assert found.real > 0.85 and found.equal == 0
    assert found.mean == pytest.approx(-0.05, abs=0.004)


def test_a_wider_search_of_one_arm_is_a_handicap():
    found = repeat(independent, World(offsets=APART), REPETITIONS, uneven=True)
    assert found.mean > 0.01


@pytest.mark.parametrize(
    ("protocol", "world", "more"),
    [
        (independent, World(offsets=APART), {"longer": True}),
        (borrowing, World(offsets={"rate": 1 / 3}), {}),
    ],
    ids=["carried", "borrowed"],
)
def test_equal_arms_stay_equal_if_settings_are_carried_or_borrowed(protocol, world, more):
    found = repeat(protocol, world, REPETITIONS, **more)
    assert found.real <= 0.05 + 3 * found.error
    assert abs(found.mean) < 0.006 and abs(found.covers - 0.95) <= 3 * found.error


def test_one_search_for_all_seeds_would_call_equal_optimizers_different():
    before = repeat(one_search, World(offsets=APART), REPETITIONS)
    assert before.real > 0.2 and before.covers < 0.8

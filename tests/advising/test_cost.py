"""What a step costs at the batch asked for, and what is measured to know it."""

import pytest

from bench.advising import cost, plan
from tests.helpers.advice import measured

STEPS = {"adamw": 10.0, "hybrid": 110.0, "torch_muon": 210.0}


def test_at_a_batch_that_was_measured_it_is_measured():
    one = cost.costs(measured(STEPS), 1024)["hybrid"]
    assert one["overhead"]["measured"]
    assert one["overhead"]["value"] == pytest.approx(100 / 1034)
    assert one["overhead"]["low"] < one["overhead"]["value"] < one["overhead"]["high"]
    assert one["break_even"]["value"] == pytest.approx(1034 / 1134)


def test_at_a_larger_batch_it_is_fitted_and_marked_so():
    one = cost.costs(measured(STEPS), 8192)["hybrid"]
    assert not one["overhead"]["measured"]
    assert one["overhead"]["value"] == pytest.approx(100 / 8202, rel=1e-3)
    assert one["units_at"]["0.05"]["units"] == pytest.approx(1990, rel=1e-2)
    assert not one["units_at"]["0.05"]["measured"]


def test_a_larger_batch_is_never_fitted_to_take_less():
    one = measured(STEPS)
    one.times.update({256: [900.0] * 5, 512: [800.0] * 5, 1024: [700.0] * 5})
    assert cost.milliseconds(one, 8192) == 700


def test_ours_stand_beside_torchs_muon():
    found = cost.costs(measured(STEPS), 1024)
    assert found["hybrid"]["over_torch_muon"]["value"] == pytest.approx(1134 / 1234 - 1)
    assert found["torch_muon"]["over_torch_muon"] is None
    without = cost.costs(measured({"adamw": 10.0, "hybrid": 110.0}), 1024)
    assert without["hybrid"]["over_torch_muon"] is None


def test_a_difference_within_the_noise_is_said_to_be_none():
    found = cost.costs(measured({"adamw": 10.0, "hybrid": 10.01}), 1024)
    assert found["hybrid"]["difference_ms"]["within_noise"]


def test_peak_memory_is_put_together_from_its_parts():
    one = measured(STEPS)
    assert cost.peak(one, "adamw", 1024) == 4 * 1000 + 8000 + 40_000
    assert cost.peak(one, "adamw", 1792) == 4 * 1000 + 8000 + 70_000  # 30,000 more for each 768
    one.temporary["hybrid"] = 50_000
    assert cost.peak(one, "hybrid", 1024) == 4 * 1000 + 6000 + 4000 + 50_000
    assert cost.costs(one, 1024)["hybrid"]["state_saved"] == 0.25


def test_what_could_not_be_measured_keeps_its_reason():
    one = measured(STEPS)
    one.errors["muon"] = "the step broke"
    assert cost.costs(one, 1024)["muon"] == {"error": "the step broke"}


@pytest.mark.parametrize(
    ("asked", "second", "most", "sizes"),
    [
        (8, 0.01, None, [2, 4, 8]),
        (8, 3.7, None, [1, 2, 4]),  # 4 rounds of 14 examples would take 207 s
        (64, 0.01, 32, [8, 16, 32]),
        (4096, 60.0, None, [1, 2, 3]),
        (1, 0.01, None, [1, 2, 3]),
        (2, 0.01, None, [1, 2, 3]),
        (6, 0.01, None, [1, 3, 6]),
    ],
)
def test_the_batch_asked_for_is_measured_where_time_and_memory_allow(asked, second, most, sizes):
    assert plan.sizes(asked, second, most) == sizes


def test_rounds_fill_the_time_there_is_and_are_never_fewer_than_three():
    assert [plan.rounds(second) for second in (0.1, 20.0, 500.0)] == [10, 5, 3]


def test_states_stay_only_where_all_of_them_fit():
    assert plan.keeps_states(10**6, 7, 10**9)
    assert not plan.keeps_states(10**9, 7, 32 * 10**9)

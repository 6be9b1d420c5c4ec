"""Advice never goes beyond its evidence: far, near, contradictory, doubtful and no records."""

from dataclasses import replace

import pytest

from bench.advising import verdict
from bench.advising.verdict import COSTS, NONE, OPEN, OUTSIDE, PAYS
from tests.helpers.advice import HERE, evidence

EVEN = {"value": 0.9, "low": 0.88, "high": 0.92}  # 11 % more a step
BELOW, ABOVE = (0.5, 0.52, 0.54), (0.97, 0.98, 0.99)


def decide(*found, case=HERE):
    return verdict.decide(list(found), case, EVEN)


def test_near_records_below_the_break_even_are_the_only_ground_to_recommend():
    one = decide(evidence(*BELOW), evidence(0.6, 0.61, 0.62))
    assert one.outcome == PAYS and len(one.on) == 2
    assert verdict.headline({"hybrid": one}).startswith("Train with hybrid")


def test_near_records_above_it_say_stay():
    one = decide(evidence(*ABOVE))
    assert one.outcome == COSTS
    assert verdict.headline({"hybrid": one}).startswith("Stay with AdamW")


FAR = {
    "parameters": replace(HERE, parameters=HERE.parameters * 4, steps=HERE.steps * 4),
    "tokens a parameter": replace(HERE, steps=HERE.steps // 4),
    "batch": replace(HERE, units=HERE.units // 4, steps=HERE.steps * 4),
    "device": replace(HERE, device="cuda"),
    "data": replace(HERE, task="images"),
}


@pytest.mark.parametrize("at", FAR.values(), ids=list(FAR))
def test_a_record_far_in_one_thing_alone_is_outside_whatever_it_shows(at):
    one = decide(evidence(*BELOW, at=at), evidence(*BELOW, at=at))
    assert one.outcome == OUTSIDE
    said = verdict.headline({"hybrid": one, "muon": decide()})
    assert said.startswith("Outside what was measured: no recommendation")


def test_within_a_factor_of_three_is_near():
    at = replace(HERE, parameters=int(HERE.parameters / 2.9))
    assert decide(evidence(*BELOW, at=replace(at, steps=HERE.steps // 3))).outcome == PAYS


def test_without_a_horizon_nothing_is_near_and_the_reason_is_said():
    one = decide(evidence(*BELOW), case=replace(HERE, steps=None))
    assert one.outcome == OUTSIDE and "train.steps=" in one.reason


def test_a_far_record_does_not_outvote_a_near_one():
    assert decide(evidence(*ABOVE), evidence(*BELOW, at=FAR["batch"])).outcome == COSTS


def test_records_that_contradict_each_other_decide_nothing():
    one = decide(evidence(*BELOW), evidence(*ABOVE))
    assert one.outcome == OPEN and "contradict" in one.reason
    assert verdict.headline({"hybrid": one}).startswith("Open")


def test_a_break_even_within_an_interval_decides_nothing():
    assert decide(evidence(0.7, 0.8, 0.9)).outcome == OPEN
    assert decide(evidence(*BELOW), evidence(0.7, 0.8, 0.9)).outcome == OPEN


def test_one_seed_has_no_interval_and_decides_nothing():
    assert decide(evidence(0.1)).outcome == OPEN


def test_a_loss_that_was_never_reached_is_above_any_break_even_below_one():
    assert decide(evidence(None, None, None)).outcome == COSTS
    assert decide(evidence(0.5, 0.5, None)).outcome == OPEN
    faster = {"value": 1.1, "low": 1.05, "high": 1.15}
    assert verdict.decide([evidence(None, None)], HERE, faster).outcome == OPEN


def test_doubtful_records_are_shown_and_decide_nothing():
    one = decide(evidence(*BELOW, doubts=("early training",)))
    assert one.outcome == OPEN and "early training" in one.reason
    both = decide(evidence(*BELOW, doubts=("early training",)), evidence(*ABOVE))
    assert both.outcome == COSTS


def test_no_record_is_an_answer():
    one = decide()
    assert (one.outcome, one.on) == (NONE, [])
    assert verdict.headline({"hybrid": one, "muon": one}).startswith("No record")


def test_a_trend_is_shown_only_where_the_intervals_are_apart():
    long = replace(HERE, steps=4 * HERE.steps)
    (rises,) = verdict.trends([evidence(*ABOVE, at=long), evidence(*BELOW)])
    assert (rises["over"], rises["shown"], rises["to"]) == ("steps", "rises", long.steps)
    (unclear,) = verdict.trends([evidence(0.4, 0.6, 0.8, at=long), evidence(*BELOW)])
    assert unclear["shown"] == "not shown"


def test_a_trend_over_the_batch_is_one_at_equal_tokens():
    large = replace(HERE, units=4 * HERE.units, steps=HERE.steps // 4)
    (one,) = verdict.trends([evidence(*ABOVE), evidence(*BELOW, at=large)])
    assert (one["over"], one["shown"]) == ("units", "falls")
    other = replace(large, steps=HERE.steps)
    assert not verdict.trends([evidence(*ABOVE), evidence(*BELOW, at=other)])
    assert not verdict.trends([evidence(*ABOVE), evidence(*BELOW, at=large, arm="muon")])

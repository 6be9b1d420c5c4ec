"""A study: what it declares, which runs it plans, how it chooses rates, and what it refuses."""

import math

import pytest

from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.studies import plan, request, study
from tests.helpers.commands import ROOT

BLOCK = {
    "question": "?",
    "baseline": "a",
    "conditions": {"x": ["train.steps=5"], "y": []},
    "arms": {"a": ["optimizer=adamw"], "b": ["optimizer=hybrid"], "c": ["optimizer=torch_muon"]},
    "rates_of": {"c": "b"},
    "grid": [0.5, 1, 2],
    "tune_seeds": [9],
    "final_seeds": [0, 1],
}


@pytest.mark.parametrize("name", ["language", "qkv"])
def test_the_published_studies_follow_the_full_protocol(name):
    declared = study.load(name)
    assert list(declared.conditions) == ["short", "long"] and declared.search
    assert len(declared.tune_seeds) == len(declared.final_seeds) >= 5 and declared.margin


def test_every_tuned_arm_gets_the_same_trials_on_seeds_of_their_own():
    declared = study.parse("s", BLOCK)
    sweeps = list(plan.tuning(declared))
    assert [(s.condition, s.arm) for s in sweeps] == [(c, a) for c in "xy" for a in "ab"]
    assert {(s.rates, s.seeds) for s in sweeps} == {((0.5, 1, 2), (9,))}
    finals = list(plan.final(declared, {("x", "b"): 2, ("y", "b"): 0.5, ("x", "a"): 1}))
    rates = {(s.condition, s.arm): s.rates for s in finals}
    assert rates["x", "b"] == rates["x", "c"] == (2,) and rates["y", "c"] == (0.5,)
    assert {s.seeds for s in finals} == {(0, 1)}


def test_the_best_rate_is_flagged_at_the_edge_and_divergence_ranks_last():
    found = study.best({1: [3.0], 0.5: [4.0], 2: [None]})
    assert found.rate == 1 and not found.at_edge and found.losses[2] == math.inf
    assert list(found.losses) == [0.5, 1, 2]
    assert study.best({1: [3.0], 2: [2.0]}).at_edge


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"baseline": "z"}, ["study.baseline=z", "a, b, c"]),
        ({"question": ""}, ["study.question"]),
        ({"colour": 1}, ["study.colour", "no such setting", "margin"]),
        ({"rates_of": {"z": "a"}}, ["study.rates_of.z", "a, b, c"]),
        ({"rates_of": {"b": "c", "c": "b"}}, ["study.rates_of"]),
        ({"tune_seeds": [1]}, ["tune_seeds", "final_seeds", "1"]),
        ({"tune_seeds": []}, ["tune_seeds"]),
        ({"grid": [2, 1]}, ["study.grid", "rising"]),
        ({"grid": [0, 1]}, ["study.grid", "above 0"]),
        ({"margin": 0}, ["study.margin=0"]),
        ({"cost_of": {"z": "gpt2-cpu"}}, ["study.cost_of.z", "x, y"]),
    ],
)
def test_a_mistake_in_a_study_is_named(change, words):
    with pytest.raises(UserError) as caught:
        study.parse("s", BLOCK | change)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["experiment=smoke"], True),
        (["-m", "experiment=smoke", "stage=tune"], True),
        (["-m", "experiment=smoke", "stage=tune", "condition=text", "arm=hybrid"], False),
        (["experiment=smoke", "--help"], False),
        (["experiment=smokee"], False),
        (["optimizer=adamw"], False),
    ],
)
def test_which_command_lines_ask_for_a_study(words, whole):
    assert request.asked(words) == whole


def test_the_command_of_a_sweep_is_one_a_person_can_type():
    declared = study.parse("s", BLOCK)
    sweep = next(plan.tuning(declared))
    words = sweep.arguments("s")
    assert words[:2] == ["-m", "experiment=s"]
    assert {"train.steps=5", "optimizer.lr_scale=0.5,1,2", "seed=9", "arm=a"} <= set(words)


def test_all_experiments_of_a_cpu_but_the_tryout_are_reproduced():
    script = (ROOT / "scripts" / "reproduce.sh").read_text()
    listed = script.partition("    experiments=(\n")[2].partition(")")[0].split()
    known = {file.stem for file in (CONF / "experiment").glob("*.yaml")}
    assert sorted(listed) == sorted(known - {"smoke", "gpt2_small_gpu"})

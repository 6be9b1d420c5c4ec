"""A step in the stream of work: what is measured on a GPU, here on a CPU, which runs it too."""

import pytest

from bench.measuring import meter
from bench.stepping import run as step_run
from bench.stepping import streams, tables
from bench.stepping.arms import Arm
from bench.stepping.subject import Subject
from tests.helpers.steps import TEXT, settle
from tests.stepping.test_step import run

KEYS = ("span_ms", "marginal_ms")


@pytest.fixture(scope="module")
def built():
    """Two arms on a small GPT-2, and their subject."""
    asked = settle(*TEXT, "optimizers=[muon]", "train.precision=fp32", "orthogonalizer.dtype=fp32")
    subject = Subject(asked.arms["adamw"], [1, 2, 3])
    return {label: Arm(label, one, subject) for label, one in asked.arms.items()}, subject


@pytest.mark.parametrize("by_turns", [False, True])
def test_a_step_takes_what_its_streak_takes_longer(built, monkeypatch, by_turns):
    """By a clock that steps of Muon move on by 7 ms and all else by nothing."""
    arms, subject = built
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(meter, "release", lambda: None)

    def slow(arm, build):
        def built_slowly():
            build()
            step = arm.routing.step
            arm.routing.step = lambda: (step(), pass_by(arm.label))

        return built_slowly

    def pass_by(label):
        now[0] += 0.007 if label == "muon" else 0.0

    for arm in arms.values():
        arm.routing = None
        monkeypatch.setattr(arm, "build", slow(arm, arm.build))
    found = streams.measure(arms, subject, 2, by_turns)
    assert found["muon"]["marginal_ms"]["median"] == pytest.approx(7.0)
    assert found["muon"]["span_ms"]["median"] == pytest.approx(7.0)
    assert found["adamw"]["marginal_ms"] == {"median": 0, "p10": 0, "p90": 0, "n": 2}
    assert all((arm.routing is None) == by_turns for arm in arms.values())


def test_every_step_of_a_streak_has_gradients(built):
    _, subject = built
    seen = []
    streams.streak(
        subject, lambda: seen.append(all(p.grad is not None for p in subject.parameters))
    )
    assert seen == [True] * streams.STREAK


def test_seconds_are_of_one_of_the_calls_in_a_row(monkeypatch):
    now, calls = iter((1.0, 3.0)), []
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    assert meter.seconds("cpu", lambda: calls.append(1), 4) == 0.5 and len(calls) == 4


def test_orthogonalization_is_told_apart_and_streams_are_for_a_gpu(tmp_path):
    _, record, _ = run(tmp_path, *TEXT, "optimizers=[muon,torch_muon]")
    found = record["optimizers"]
    assert all(one[key] is None for one in found.values() for key in KEYS)
    own = found["muon"]
    assert 0 < own["orthogonalization_ms"]["median"] < own["step_ms"]["median"]
    assert own["orthogonalization_gemm_share"] > own["gemm_share"]
    assert found["torch_muon"]["orthogonalization_ms"] is None  # its parts are not told apart
    assert found["torch_muon"]["orthogonalization_gemm_share"] is None

    own |= dict(span_ms=own["step_ms"], marginal_ms=own["step_ms"])
    assert tables.in_stream(record)[1].row_count == 3


def test_a_gpu_measures_them(tmp_path, monkeypatch):
    asked = []

    def measure(arms, subject, rounds, by_turns):
        asked.append((set(arms), rounds))
        return {label: {key: {"median": 1.0} for key in KEYS} for label in arms}

    monkeypatch.setattr(streams, "measure", measure)
    monkeypatch.setattr(step_run, "on_gpu", lambda subject: True)
    monkeypatch.setattr(tables, "in_stream", tables.times)
    _, record, _ = run(tmp_path, *TEXT, "optimizers=[muon]")
    assert asked == [({"adamw", "muon"}, 3)]
    assert record["optimizers"]["muon"]["marginal_ms"] == {"median": 1.0}

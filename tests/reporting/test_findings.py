"""Captions: what a chart shows, in words that its tests allow."""

import json

import pytest

from bench.reporting import batch_field, cost_charts, findings
from bench.studies import study
from tests.helpers import fake_results
from tests.helpers.report_pages import gather


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """Of the coefficients one is worse, one is open, the others are equal."""
    folder = tmp_path_factory.mktemp("variants")
    fake_results.fill(folder, "orthogonalizer", arms=["keller", "taylor", "exact", "fitted"])
    off = {"taylor": (0.5, 0.001), "exact": (0, 0.05), "fitted": (0.001, 0.001)}
    for file in folder.glob("records/orthogonalizer/*-final.json"):
        one = json.loads(file.read_text())
        gain, noise = off.get(one["arm"], (0, 0.001))
        loss = 4 + gain + noise * fake_results.noise(one["arm"], one["seed"], "apart")
        file.write_text(json.dumps(one | {"test_loss": loss}))
    return gather(folder).comparisons["orthogonalizer"]


@pytest.mark.usefixtures("judged")
def test_differences_are_grouped_by_what_is_shown(variants):
    assert findings.differences(variants) == (
        "Higher loss than keller by more than 0.02 nats: taylor +0.500. "
        "Within ±0.02 nats of it: fitted. Not decided: exact."
    )


def test_early_training_is_called_so_and_not_judged(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw", "hybrid"])
    fake_results.lines(tmp_path, study.load("optimizers"), "language", bigram=1.0)
    found = findings.differences(gather(tmp_path).comparisons["optimizers"])
    assert found == "Early training, not judged: language."


def test_one_seed_is_no_difference(tmp_path):
    fake_results.fill(tmp_path, "cost", ["gpt2"])
    found = findings.differences(gather(tmp_path).comparisons["cost"])
    assert "No difference was tested" in found


def test_a_curve_says_where_it_ends_and_over_seconds_how_long_a_step_takes(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw", "hybrid", "muon"])
    (one,) = gather(tmp_path).comparisons["optimizers"]
    lowest = min(one.arms, key=lambda arm: arm.runs[0].record["val_loss"] and arm.test_loss.mean)
    said = findings.loss(one, "steps")
    assert f"after 600 steps {lowest.name} is lowest on average" in said
    if lowest.name != "adamw":
        assert "adamw is at" in said and "times as long as" in findings.loss(one, "seconds")


def test_the_overhead_is_shown_at_most_ten_times_as_far_as_it_was_measured(tmp_path):
    fake_results.step(tmp_path, "gpt2-cpu", ("torch_muon", "hybrid"))
    one = gather(tmp_path).steps["gpt2-cpu"]
    assert max(p["units"] for p in one["optimizers"]["hybrid"]["overhead"]) > 10 * 512
    for points in findings.drawn(one).values():
        assert max(point["units"] for point in points) == 8 * 512
    rows = [
        r
        for layer in cost_charts.overhead(one).to_dict()["layer"]
        if "data" in layer
        for r in layer["data"].get("values", [])
    ]
    assert max((row["x"] for row in rows if "x" in row), default=0) <= 10 * 512
    said = findings.overhead(one)
    assert said.startswith("At 512 tokens a step, the most that was measured: torch_muon +42 %")
    assert "(~: extrapolated): torch_muon ~4.5k, hybrid ~2k." in said


def test_the_batch_field_has_every_point_and_begins_at_the_largest_measured_batch(tmp_path):
    fake_results.step(tmp_path, "gpt2-cpu", ("torch_muon", "hybrid"))
    one = gather(tmp_path).steps["gpt2-cpu"]
    found = batch_field.of(one)
    assert (found["least"], found["most"]) == (256, 512)
    adamw, torch_muon, _ = found["rows"]
    assert adamw["text"] == "reference" and found["data"]["points"][0] is None
    assert torch_muon["text"] == "+41.9 %"
    assert len(found["data"]["points"][1]) == 10
    assert found["data"]["points"][1][-1][0] == 256 * 2**9

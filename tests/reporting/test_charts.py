"""The report's charts: valid, finite, one colour an arm, and what they draw."""

import json
from dataclasses import replace

import altair as alt
import jsonschema
import pytest

from bench.display.palette import GREY
from bench.reporting import charts, difference_charts, findings, tuning_charts
from bench.reporting import page as report_page
from bench.reporting.style import styles
from bench.studies import study
from bench.studies import words as report_words
from tests.helpers import fake_results
from tests.helpers.report_pages import Parsed, gather


def test_every_chart_is_valid_and_finite(page):
    specs = Parsed(page).specs()
    # The forest; loss over steps and seconds of two conditions, one with accuracy;
    # the overhead; tuning of both conditions.
    assert len(specs) == 1 + 2 + 3 + 1 + 2
    for spec in specs:
        alt.LayerChart.validate(spec)
        assert spec["width"] == "container" and spec["title"]["text"]
        assert spec["description"].endswith(".")
    with pytest.raises(jsonschema.ValidationError):
        alt.LayerChart.validate(specs[0] | {"layer": 3})


def colors(node):
    """Of arms by name, in all scales of a chart."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return {}
    found = {}
    for part in node.values():
        found |= colors(part)
    color = node.get("color")
    if isinstance(color, dict) and color.get("field") == "arm":
        found |= dict(zip(color["scale"]["domain"], color["scale"]["range"], strict=True))
    return found


def test_an_arm_has_one_colour_in_all_charts_and_experiments(page):
    seen = {}
    for spec in Parsed(page).specs():
        for name, color in colors(spec).items():
            assert seen.setdefault(name, color) == color
    assert {"adamw", "hybrid", "muon", "adamw_again"} <= seen.keys()
    for name in study.declared():
        declared = study.load(name)
        found = styles(declared.arms, declared.again())
        assert len(set(found.values())) == len(found), name
        assert len({style.color for style in found.values()}) == len(found), name
        for arm, style in found.items():
            assert seen.setdefault(arm, style.color) == style.color, (name, arm)


def test_variants_of_an_optimizer_are_shades_of_its_colour_with_other_shapes():
    found = styles(["hybrid qkv=fused", "adamw", "hybrid qkv=split", "hybrid qkv=per_head"])
    assert found["hybrid qkv=fused"] == styles(["hybrid"])["hybrid"]
    variants = [style for name, style in found.items() if "hybrid" in name]
    assert len({v.color for v in variants}) == len({v.shape for v in variants}) == 3


def values(chart):
    """The rows of a chart's data."""
    found = chart.to_dict()
    kept = [layer.get("data") for layer in found["layer"]] + [found.get("data")]
    named = found.get("datasets", {})
    return [row for data in kept if data for row in data.get("values", named.get(data.get("name")))]


def domain(chart):
    """Of the vertical axis."""
    layers = chart.to_dict()["layer"]
    return next(
        one["encoding"]["y"]["scale"]["domain"]
        for one in layers
        if "domain" in one["encoding"]["y"].get("scale", {})
    )


def test_loss_charts_show_the_end_and_leave_noise_arms_out(content):
    one = content.comparisons["optimizers"][0]
    for against, least in (("steps", 600), ("seconds", 20)):
        rows = values(charts.loss(one, against))
        assert {row["arm"] for row in rows} == {"adamw", "hybrid", "muon"}
        assert max(row["x"] for row in rows) >= least
    assert domain(charts.loss(one, "steps"))[0] > 3
    assert "adamw_again" in {row.get("arm") for row in values(difference_charts.differences([one]))}
    assert colors(difference_charts.differences([one]).to_dict())["adamw_again"] == GREY


def test_one_seed_has_no_band_no_interval_and_no_verdict(tmp_path):
    fake_results.fill(tmp_path, "cost", ["gpt2"])
    one = gather(tmp_path).comparisons["cost"][0]
    chart = charts.loss(one, "steps")
    assert not [row for row in values(chart) if "low" in row]
    assert not [layer for layer in chart.to_dict()["layer"] if layer["mark"]["type"] == "area"]
    assert "one run an arm" in " ".join(chart.to_dict()["title"]["subtitle"])
    assert "One seed, not tested: " in report_words.answer(one)
    assert "Optimizer state against adamw's: hybrid −50.0 %" in report_words.answer(one)
    for chart in (tuning_charts.tuning(one), charts.accuracy(one)):
        assert chart is None
    assert difference_charts.differences([one]) is None


def test_the_band_of_two_seeds_does_not_hide_the_curves(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw"], [0, 1])
    other = json.loads(next(tmp_path.glob("records/optimizers/*-s1-*")).read_text())
    higher = [line | {"val_loss": line["val_loss"] + 1} for line in other["curve"]]
    fake_results.write(tmp_path, other | {"curve": higher})
    chart = charts.loss(gather(tmp_path).comparisons["optimizers"][0], "steps")
    rows, (least, most) = values(chart), domain(chart)
    assert min(row["low"] for row in rows) < 0  # 12.7 standard errors
    assert least > 3 and most < 10
    assert all(least <= row["bottom"] < row["top"] <= most for row in rows)


def test_edges_and_divergence_are_shown(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw", "hybrid"])
    for file in tmp_path.glob("records/optimizers/*-adamw-s100-*"):
        one = json.loads(file.read_text())
        worst = one["lr_scale"] == 8
        lost = {"status": "diverged", "val_loss": None, "test_loss": None} if worst else {}
        fake_results.write(tmp_path, one | {"val_loss": 9 - one["lr_scale"]} | lost)
    for file in tmp_path.glob("records/optimizers/*-hybrid-s100-*"):
        one = json.loads(file.read_text())
        fake_results.write(tmp_path, one | {"val_loss": 9 - one["lr_scale"]})
    content = gather(tmp_path)
    one = content.comparisons["optimizers"][0]
    rows = values(tuning_charts.tuning(one))
    assert {row["arm"] for row in rows if row.get("note")} == {"hybrid"}
    assert {row["rate"] for row in rows if row["arm"] == "adamw" and "note" in row} == {4}
    assert "At the edge of the grid: the rate of hybrid;" in report_words.answer(one)
    assert "edge of the grid" in Parsed(report_page.page(content)).text


def test_steps_to_the_target_count_the_runs_that_never_reach_it(content):
    arm = content.comparisons["optimizers"][0].arms[0]
    assert report_words.to_target(replace(arm, steps_to_target=[100, None, 200])) == (
        "200",
        "not by 1 of 3 runs",
    )
    late = replace(arm, steps_to_target=[100, None, None])
    assert report_words.to_target(late) == ("not reached", "not by 2 of 3 runs")
    assert report_words.to_target(replace(arm, steps_to_target=[])) == ("–", "")


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_static_chart_is_the_same_picture_each_time(content, tmp_path, suffix):
    chart = charts.loss(content.comparisons["optimizers"][0], "steps")
    first = charts.static(chart, tmp_path / f"a.{suffix}").read_bytes()
    assert charts.static(chart, tmp_path / f"b.{suffix}").read_bytes() == first
    assert b"<svg" in first[:100] or first[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_variants_are_drawn_as_differences_to_their_baseline(tmp_path):
    fake_results.fill(tmp_path, "orthogonalizer")
    (one,) = gather(tmp_path).comparisons["orthogonalizer"]
    rows = [row for row in values(charts.curve(one)) if "arm" in row]
    assert {row["arm"] for row in rows} == {arm.name for arm in one.arms} - {
        "keller",
        "keller_again",
    }
    assert all(abs(row["mean"]) < 1 for row in rows)  # no losses of about 4
    runs = {
        arm: {run.record["seed"]: run.record["curve"][-1]["val_loss"] for run in one.arm(arm).runs}
        for arm in ("taylor", "keller")
    }
    gaps = [runs["taylor"][seed] - runs["keller"][seed] for seed in range(5)]
    last = next(r for r in rows if r["arm"] == "taylor" and r["x"] == max(r["x"] for r in rows))
    assert last["mean"] == pytest.approx(sum(gaps) / 5, abs=1e-5)


def test_at_equal_time_the_one_chart_is_over_seconds(content):
    one = content.comparisons["optimizers"][0]
    timed = replace(one, study=replace(one.study, equal_time_of={"language": "gpt2_nano-cpu"}))
    for given, title in ((one, "over steps"), (timed, "over seconds")):
        assert title in charts.curve(given).to_dict()["title"]["text"]


def test_the_forest_has_a_group_an_experiment_and_a_margin_each(tmp_path):
    fake_results.fill(tmp_path, "optimizers", arms=["adamw", "hybrid"])
    fake_results.fill(tmp_path, "language", ["short"])
    found = gather(tmp_path).comparisons
    every = [*found["optimizers"], *found["language"]]
    drawn = difference_charts.forest(every)
    alt.LayerChart.validate(drawn.to_dict())
    rows = {row["row"]: row for row in values(drawn) if "row" in row}
    assert list(rows)[:2] == ["#|optimizers, language", "optimizers, language|hybrid"]
    assert rows["optimizers, vision|hybrid"]["right"] == 0.02
    assert rows["language, short|muon"]["left"] == -0.036
    assert drawn.to_dict()["description"] == findings.experiments(every)


def test_the_page_draws_on_its_own_ground_and_a_file_on_white(content, tmp_path):
    chart = charts.loss(content.comparisons["optimizers"][0], "steps")
    assert chart.to_dict()["config"]["background"] == "transparent"
    assert b'fill="white"' in charts.static(chart, tmp_path / "a.svg").read_bytes()[:500]

"""Two groups of runs: what was typed, paired and unpaired differences, equal loss, settings."""

import math

import pytest

from bench.records import archive
from bench.settings.errors import UserError
from bench.studies import differing, selection, versus
from tests.helpers import fake_results


def compare(folder, typed):
    return versus.compare(archive.read(folder).runs, typed)


def fill(folder, losses):
    for optimizer, of in losses.items():
        for seed, loss in of.items():
            fake_results.own(folder, optimizer, seed, loss)


def test_seeds_that_both_have_pair(tmp_path):
    fill(tmp_path, {"adamw": {0: 4.0, 1: 4.2, 2: 4.1}, "hybrid": {0: 3.7, 1: 3.8, 2: 3.9, 7: 1.0}})
    found = compare(tmp_path, "[gpt2_nano-adamw,gpt2_nano-hybrid*]")
    assert [one.name for one in found.losses] == ["validation loss", "test loss"]
    one = found.losses[1]
    assert one.paired and one.difference.n == 3
    assert one.difference.mean == pytest.approx(-0.3)
    assert one.ours == pytest.approx(4.1) and one.theirs == pytest.approx(3.8)  # of the pairs
    assert 0 < one.p < 0.1 and one.test == "paired t"


def test_without_a_common_seed_means_are_compared_as_independent(tmp_path):
    fill(tmp_path, {"adamw": {0: 4.0, 1: 4.2}, "hybrid": {2: 3.7, 3: 3.8}})
    one = compare(tmp_path, "[gpt2_nano-adamw,gpt2_nano-hybrid]").losses[0]
    assert not one.paired and one.test == "Welch's t"
    assert one.difference.mean == pytest.approx(-0.35) and 0 < one.p < 1
    assert -math.inf < one.difference.low < one.difference.high < math.inf


def test_other_data_never_pairs(tmp_path):
    fake_results.own(tmp_path, "adamw", 0, 4.0)
    fake_results.own(tmp_path, "hybrid", 0, 3.0, config={"data": {"name": "other"}})
    one = compare(tmp_path, "[gpt2_nano-adamw,gpt2_nano-hybrid]").losses[0]
    assert not one.paired and one.difference.n == 1 and math.isnan(one.p)


def test_steps_and_seconds_to_equal_loss_are_read_from_the_curves(tmp_path):
    fill(tmp_path, {"adamw": {0: 4.0, 1: 4.0}, "hybrid": {0: 3.0, 1: 3.0}})
    found = compare(tmp_path, "[gpt2_nano-adamw,gpt2_nano-hybrid]")
    steps = found.ours[0].record["steps"]
    reached = next(  # a straight line from 6 to 3 is at 4 after two thirds
        line["step"] for line in found.theirs[0].record["curve"] if line["val_loss"] <= 4.0
    )
    assert abs(reached - 2 / 3 * steps) <= steps / 12
    assert found.b_to_a.step == reached and found.b_to_a.target == 4.0
    assert found.b_to_a.seconds == pytest.approx(0.05 * reached)
    assert found.b_to_a.of[0] == steps and found.b_to_a.never == 0
    assert found.a_to_b.step is None and (found.a_to_b.never, found.a_to_b.runs) == (2, 2)


def test_seconds_of_runs_with_other_libraries_preloaded_are_not_of_one_clock(tmp_path):
    fill(tmp_path, {"adamw": {0: 4.0}, "hybrid": {0: 3.0}})
    found = compare(tmp_path, "[gpt2_nano-adamw,gpt2_nano-hybrid]")
    assert versus.same_clock(found.ours, found.theirs)
    found.ours[0].record["environment"] = fake_results.ENVIRONMENT | {"preload": "faster.so"}
    assert not versus.same_clock(found.ours, found.theirs)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("[gpt2_nano-adamw]", "needs two names"),
        ("[a,b,c]", "needs two names"),
        ("[,b]", "needs two names"),
        ("[gpt2_nano-adamv,gpt2_nano-hybrid]", "gpt2_nano-adamv: no run of this name; perhaps "),
        ("[optimizers/adam,gpt2_nano-hybrid]", "optimizers/adam: no run of this name; there are "),
        ("[gpt2_nano-adamw,gpt2_nano-adamw*]", "is in both"),
    ],
)
def test_a_mistake_names_what_was_typed_and_what_is_near(tmp_path, typed, said):
    fill(tmp_path, {"adamw": {0: 4.0}, "hybrid": {0: 3.0}})
    with pytest.raises(UserError) as error:
        compare(tmp_path, typed)
    assert said in str(error.value) and str(error.value).startswith("compare")
    if "perhaps" in said:
        assert "gpt2_nano-adamw" in str(error.value)


def test_the_beginning_of_a_name_ends_where_a_part_of_it_does(tmp_path):
    fill(tmp_path, {"adam": {0: 4.0}, "adamw": {0: 4.0}})
    runs = archive.read(tmp_path).runs
    (one,) = selection.chosen(runs, "gpt2_nano-adam")
    assert one.record["optimizer"] == "adam"
    assert len(selection.chosen(runs, "gpt2_nano-ada")) == 2


def test_the_beginning_of_a_name_prefers_runs_outside_experiments(tmp_path):
    fake_results.fill(tmp_path, "optimizers")
    published = archive.read(tmp_path).runs
    name = published[0].record["cell"].partition("-s")[0]
    assert {run.experiment for run in selection.chosen(published, name)} == {"optimizers"}
    fake_results.own(tmp_path, name.partition("-")[2], 0, 4.0)
    chosen = selection.chosen(archive.read(tmp_path).runs, name)
    assert [run.experiment for run in chosen] == [None]
    pattern = selection.chosen(archive.read(tmp_path).runs, f"{name}-s*")
    assert len(pattern) > 1


def test_an_arm_of_an_experiment_is_chosen_under_one_condition(tmp_path):
    fake_results.fill(tmp_path, "optimizers", arms=["adamw", "hybrid"], seeds=[0, 1])
    with pytest.raises(UserError, match="several conditions"):
        compare(tmp_path, "[optimizers/adamw,optimizers/hybrid]")
    typed = "[optimizers/language/adamw,optimizers/language/hybrid]"
    found = compare(tmp_path, typed)
    assert [run.record["seed"] for run in found.ours] == [0, 1]
    assert {run.stage for run in (*found.ours, *found.theirs)} == {"final"}


def test_only_settings_that_differ_are_listed_and_a_missing_part_is_one_line(tmp_path):
    muon = {"_target_": "optimizers.muon.Muon", "lr": 0.02, "momentum": 0.95}
    config = {"name": "hybrid", "lr_scale": 1.0, "roles": {"hidden": muon}}
    fake_results.own(tmp_path, "adamw", 0, 4.0)
    fake_results.own(tmp_path, "hybrid", 0, 4.0, config={"optimizer": config, "seed": 5})
    runs = {run.record["optimizer"]: [run] for run in archive.read(tmp_path).runs}
    assert differing.table(runs["adamw"], runs["hybrid"]) == [
        ("optimizer.name", "adamw", "hybrid"),
        ("optimizer.roles", "–", "3 settings"),
    ]
    assert differing.table(runs["adamw"], runs["adamw"]) == []

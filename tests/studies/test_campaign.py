"""A study in progress: what it refuses, and which of its runs are left, running or waiting."""

import json

import pytest

from bench.records import owner, record
from bench.settings.errors import UserError
from bench.studies import plan, request, study
from bench.studies.campaign import Campaign
from bench.studies.study import PILOT
from tests.helpers import fake_results


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stage=tuned", ["stage=tuned", "pilot, tune, final"]),
        ("arm=adam", ["arm=adam", "adamw, hybrid"]),
        ("condition=speech", ["condition=speech", "text, images"]),
        ("seed=3", ["seed=3", "study.final_seeds"]),
        ("optimizer.lr_scale=1,2", ["optimizer.lr_scale=1,2", "one rate"]),
        ("study.grid=[2,1]", ["study.grid"]),
        ("train.stepz=1", ["train.stepz"]),
        ("optimizer=muon", ["optimizer=muon", "arm="]),
        ("model=gpt3", ["gpt3"]),
    ],
)
def test_a_mistake_on_the_command_line_is_named(override, words):
    with pytest.raises(UserError) as caught:
        Campaign(request.read(["experiment=smoke", override]))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_run_that_is_published_is_not_trained_again(tmp_path):
    words = ["experiment=language", "tracker=none", f"results_dir={tmp_path}"]
    campaign = Campaign(request.read(words))
    first, *others = campaign.ready()
    fake = fake_results.one(campaign.study, PILOT, "short", "adamw", 50, 0.5)
    (name,) = first.cells
    fake_results.write(tmp_path, fake | {"cell": name})
    assert campaign.left(first) == [] and len(campaign.left(others[0])) == 1
    assert campaign.loss(first.sweep) == fake["val_loss"]


def test_a_final_run_is_trained_again_for_weights_that_only_its_record_is_left_of(tmp_path):
    """Records are published, weights are not."""
    words = ["experiment=pretrain", "tracker=none", f"results_dir={tmp_path}"]
    fake_results.fill(tmp_path, "pretrain")
    campaign = Campaign(request.read(words))
    for sweep in (*plan.tuning(campaign.study), *plan.final(campaign.study, {})):
        planned = campaign.plan(sweep)
        for name in planned.cells:
            run = tmp_path / "runs" / name
            run.mkdir(parents=True)
            fake = next(tmp_path.glob(f"records/pretrain/*{sweep.arm}*.json"))
            record.write_json(run / "record.json", json.loads(fake.read_text()) | {"cell": name})
        final = sweep.stage == study.FINAL
        assert len(campaign.left(planned)) == final * len(planned.cells)
        for name in planned.cells:
            (tmp_path / "runs" / name / "weights.safetensors").touch()
        assert not campaign.left(planned)


def test_tuning_runs_that_run_elsewhere_are_not_called_missing(tmp_path):
    words = ["experiment=smoke", "condition=text", "arm=adamw", f"results_dir={tmp_path}"]
    campaign = Campaign(request.read(words))
    (tuning,) = (s for s in plan.tuning(campaign.study) if campaign.wants(*s.key))
    first, *_ = campaign.plan(tuning).cells
    (tmp_path / "runs" / first).mkdir(parents=True)
    with owner.Ownership(tmp_path / "runs" / first):
        assert campaign.running(campaign.plan(tuning)) == 1
        with pytest.raises(UserError, match="1 of 3 tuning runs are running elsewhere"):
            campaign.best(asked=True)
    with pytest.raises(UserError, match="3 of 3 tuning runs have not ended"):
        campaign.best(asked=True)


def test_a_study_that_borrows_says_what_it_waits_for_and_one_that_ranks_by_cost_what_it_needs(
    tmp_path,
):
    words = ["experiment=field", "tracker=none", f"results_dir={tmp_path}"]
    campaign = Campaign(request.read(words))
    assert campaign.waits() == "; they borrow the trials of experiment=language"
    assert campaign.costs_missing() == ["gpt2_pico-field"]
    fake_results.timed(tmp_path, "gpt2_pico-field", hybrid=0.25)
    assert campaign.costs_missing() == []
    other = Campaign(request.read(["experiment=smoke", f"results_dir={tmp_path}"]))
    assert other.waits() == "" and other.costs_missing() == []

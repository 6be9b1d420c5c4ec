"""The settings that a study's runs get, and what they need first."""

import json

import pytest

from bench.records import cell, record
from bench.settings.errors import UserError
from bench.studies import plan, request, study
from bench.studies.campaign import Campaign
from tests.helpers import fake_results
from tests.helpers.commands import TINY, settle


def pretrained(folder, seeds=(*range(5), 100)) -> None:
    """Files where the final runs of experiment=pretrain leave their weights."""
    for arm in ("adamw", "hybrid"):
        for seed in seeds:
            run = folder / "runs" / f"{arm}-s{seed}-0"
            run.mkdir(parents=True)
            (run / "weights.safetensors").write_text(f"{arm} {seed}")
            part = {"experiment": "pretrain", "stage": "final", "condition": "early", "arm": arm}
            record.write_json(run / "part_of.json", [part])


@pytest.mark.more
@pytest.mark.parametrize("name", study.declared())
def test_every_experiment_is_whole_and_plans_runs_that_settle(name, tmp_path):
    pretrained(tmp_path)
    overrides = [f"experiment={name}", "tracker=none", f"results_dir={tmp_path}"]
    campaign = Campaign(request.read(overrides))
    declared = campaign.study
    if declared.search is not None:
        return  # tests/studies/test_search.py
    assert not declared.equal_time_of  # that is for settings which another experiment found
    sweeps = [*plan.tuning(declared), *plan.final(declared, {})]
    arms = {(s.condition, s.arm) for s in sweeps if s.stage == study.FINAL}
    assert arms == {(c, a) for c in declared.conditions for a in declared.arms}
    cells = [cell for sweep in sweeps for cell in campaign.plan(sweep).cells]
    assert len(set(cells)) == len(cells)  # no two arms of an experiment are the same run


def test_the_command_line_of_a_trial_trains_the_cell_that_was_planned(tmp_path):
    words = ["experiment=language", *TINY, "tracker=none", f"results_dir={tmp_path}"]
    campaign = Campaign(request.read([word for word in words if "seed" not in word]))
    for planned in campaign.ready()[::5]:
        typed = planned.sweep.arguments("language", planned.values)[1:]
        assert list(planned.cells) == [cell.name(settle(*typed))]


def test_equal_time_gives_the_steps_that_the_baselines_time_buys(tmp_path):
    file = fake_results.timed(tmp_path, "gpt2_pico-cpu", hybrid=0.25)
    words = ["experiment=equal_time", "tracker=none", f"results_dir={tmp_path}"]
    timed_alone = json.loads(file.read_text())
    timed = {
        name: settle(*words, "model=gpt2_pico", f"optimizer={name}").optimizer
        for name in ("adamw", "hybrid")
    }
    timed_alone |= {"precision": "fp32", "config": {"optimizers": timed}}
    file.write_text(json.dumps(timed_alone))
    campaign = Campaign(request.read(words))
    steps = {
        arm: campaign.sample(study.FINAL, "language", arm).train.steps
        for arm in ("adamw", "hybrid")
    }
    assert steps == {"adamw": 2000, "hybrid": 1600}
    with pytest.raises(UserError, match='a time of "muon" at 1024 tokens a step first'):
        campaign.sample(study.FINAL, "language", "muon")
    file.write_text(json.dumps(timed_alone | {"precision": "bf16"}))
    with pytest.raises(UserError, match=r"train\.precision=fp32, timed with bf16 before"):
        Campaign(request.read(words)).sample(study.FINAL, "language", "hybrid")


def test_equal_time_needs_the_cost_of_a_step(tmp_path):
    words = ["experiment=equal_time", "tracker=none", f"results_dir={tmp_path}"]
    command = r"needs bench/step\.py name=gpt2_pico-cpu .*'optimizers=\[adamw,hybrid,muon\]' first"
    with pytest.raises(UserError, match=command):
        Campaign(request.read(words)).sample(study.FINAL, "language", "hybrid")


def test_what_continues_says_what_comes_first_and_starts_each_seed_from_its_own(tmp_path):
    words = ["experiment=finetune", "tracker=none", f"results_dir={tmp_path}"]
    campaign = Campaign(request.read(words))
    assert campaign.study.continues and not study.load("language").continues
    with pytest.raises(UserError, match=r"needs bench/train\.py experiment=pretrain first"):
        campaign.ready()
    pretrained(tmp_path)
    (one,) = (s for s in plan.final(campaign.study, {}) if s.key[1:] == ("after_hybrid", "adamw"))
    starts = [settings.init_from for settings in campaign.plan(one).cells.values()]
    runs = [tmp_path / "runs" / f"hybrid-s{seed}-0" for seed in range(5)]
    assert starts == [str(run / "weights.safetensors") for run in runs]

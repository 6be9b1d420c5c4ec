"""A study: what it declares, which runs it plans, how it chooses rates, and what it refuses."""

import json
import math

import pytest

from bench.records import owner, record
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.studies import plan, protocol, request, study
from tests.helpers import fake_results
from tests.helpers.commands import ROOT, command, settle

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
    campaign = protocol.Campaign(request.read(overrides))
    declared = campaign.study
    if declared.search is not None:
        return  # tests/studies/test_search.py
    assert not declared.equal_time_of  # that is for settings which another experiment found
    sweeps = [*plan.tuning(declared), *plan.final(declared, {})]
    arms = {(s.condition, s.arm) for s in sweeps if s.stage == study.FINAL}
    assert arms == {(c, a) for c in declared.conditions for a in declared.arms}
    cells = [cell for sweep in sweeps for cell in campaign.plan(sweep).cells]
    assert len(set(cells)) == len(cells)  # no two arms of an experiment are the same run


@pytest.mark.parametrize("name", ["optimizers", "qkv"])
def test_the_published_studies_follow_the_full_protocol(name):
    declared = study.load(name)
    assert len(declared.conditions) == 2 and len(declared.final_seeds) >= 5 and declared.margin
    assert name != "optimizers" or len(declared.grid) >= 7


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
        protocol.Campaign(request.read(["experiment=smoke", override]))
    assert all(word in str(caught.value) for word in words), caught.value


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
    campaign = protocol.Campaign(request.read(words))
    steps = {
        arm: campaign.sample(study.FINAL, "language", arm).train.steps
        for arm in ("adamw", "hybrid")
    }
    assert steps == {"adamw": 2000, "hybrid": 1600}
    with pytest.raises(UserError, match="optimizer=muon at 1024 tokens a step first"):
        campaign.sample(study.FINAL, "language", "muon")
    file.write_text(json.dumps(timed_alone | {"precision": "bf16"}))
    with pytest.raises(UserError, match=r"train\.precision=fp32, timed with bf16 before"):
        protocol.Campaign(request.read(words)).sample(study.FINAL, "language", "hybrid")


def test_equal_time_needs_the_cost_of_a_step(tmp_path):
    words = ["experiment=equal_time", "tracker=none", f"results_dir={tmp_path}"]
    with pytest.raises(UserError, match=r"needs bench/step\.py name=gpt2_pico-cpu model=gpt2_pico"):
        protocol.Campaign(request.read(words)).sample(study.FINAL, "language", "hybrid")


def test_what_continues_says_what_comes_first_and_starts_each_seed_from_its_own(tmp_path):
    words = ["experiment=finetune", "tracker=none", f"results_dir={tmp_path}"]
    campaign = protocol.Campaign(request.read(words))
    assert campaign.study.continues and not study.load("language").continues
    with pytest.raises(UserError, match=r"needs bench/train\.py experiment=pretrain first"):
        campaign.ready()
    pretrained(tmp_path)
    (one,) = (s for s in plan.final(campaign.study, {}) if s.key[1:] == ("after_hybrid", "adamw"))
    starts = [settings.init_from for settings in campaign.plan(one).cells.values()]
    runs = [tmp_path / "runs" / f"hybrid-s{seed}-0" for seed in range(5)]
    assert starts == [str(run / "weights.safetensors") for run in runs]


def test_a_final_run_is_trained_again_for_weights_that_only_its_record_is_left_of(tmp_path):
    """Records are published, weights are not."""
    words = ["experiment=pretrain", "tracker=none", f"results_dir={tmp_path}"]
    fake_results.fill(tmp_path, "pretrain")
    campaign = protocol.Campaign(request.read(words))
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


@pytest.mark.long
def test_fine_tuning_follows_pretraining(tmp_path):
    sizes = ["model.layers=1", "model.width=32", "model.heads=2", "train.batch_size=2"]
    sizes += ["train.sequence_length=32", "train.steps=4", "train.eval_every=4"]
    sizes += ["schedule.warmup_steps=1", "data.final_eval_sequences=8", "tracker=none"]
    common = [*sizes, "study.grid=[1]", f"results_dir={tmp_path}"]
    early = command("experiment=finetune", *common)
    assert early.returncode == 1 and "experiment=pretrain first" in early.stderr.splitlines()[-1]
    seeds = ["study.tune_seeds=[200]", "study.final_seeds=[0,100]"]
    first = command("experiment=pretrain", *common, *seeds)
    assert first.returncode == 0, first.stderr
    for name, runs in (("finetune", 8), ("lora", 6)):
        then = command(f"experiment={name}", *common, "study.final_seeds=[0]")
        assert then.returncode == 0, then.stderr
        found = [
            one
            for file in (tmp_path / "runs").glob("*/record.json")
            if (one := record.read(file.parent))["experiment"] == name
        ]
        assert len(found) == runs and all(one["status"] == "finished" for one in found)
        assert all(abs(one["forgotten"]) > 0 for one in found)


def test_tuning_runs_that_run_elsewhere_are_not_called_missing(tmp_path):
    words = ["experiment=smoke", "condition=text", "arm=adamw", f"results_dir={tmp_path}"]
    campaign = protocol.Campaign(request.read(words))
    (tuning,) = (s for s in plan.tuning(campaign.study) if campaign.wants(*s.key))
    first, *_ = campaign.plan(tuning).cells
    (tmp_path / "runs" / first).mkdir(parents=True)
    with owner.Ownership(tmp_path / "runs" / first):
        assert campaign.running(campaign.plan(tuning)) == 1
        with pytest.raises(UserError, match="1 of 3 tuning runs are running elsewhere"):
            campaign.best(asked=True)
    with pytest.raises(UserError, match="3 of 3 tuning runs have not ended"):
        campaign.best(asked=True)


@pytest.mark.more
def test_a_study_is_trained_once_and_reported(tmp_path):
    words = ["experiment=smoke", "condition=text", "tracker=none", f"results_dir={tmp_path}"]
    with pytest.raises(UserError, match="stage=tune"):
        protocol.Campaign(request.read([*words, "arm=torch_muon"])).best(asked=True)
    first = command(*words, "stage=tune")
    assert first.returncode == 0, first.stderr
    tuned = sorted((tmp_path / "runs").glob("*/record.json"))
    assert len(tuned) == 6
    times = {f: f.stat().st_mtime for f in tuned}
    assert "?" in first.stderr and "6 runs are left" in first.stderr

    whole = command(*words)
    assert whole.returncode == 0, whole.stderr
    assert "6 runs are left" in whole.stderr
    files = sorted((tmp_path / "runs").glob("*/record.json"))
    assert len(files) == 12
    assert {f: f.stat().st_mtime for f in tuned} == times
    parts = [record.parts(f.parent) for f in files]
    assert all(len(p) == 1 and p[0]["experiment"] == "smoke" for p in parts)
    commands = {record.read(f.parent)["command"] for f in files}
    assert all("-m experiment=smoke stage=" in c and "arm=" in c for c in commands)

    again = command(*words)
    assert again.returncode == 0 and "0 runs are left" in again.stderr
    assert "validation loss by optimizer.lr_scale" in again.stdout

    report = command(f"results_dir={tmp_path}", entry="report")
    assert report.returncode == 0, report.stderr
    assert "12 runs" in report.stdout
    verdicts = {v["claim"]: v for v in json.loads((tmp_path / "verdicts.json").read_text())}
    assert verdicts.keys() == {file.stem for file in (CONF / "claim").rglob("*.yaml")}
    for verdict in verdicts.values():
        assert verdict["verdict"] in ("confirmed", "refuted", "depends", "not enough evidence")
        assert verdict["verdict"] != "not enough evidence" or verdict["condition"]
    text = (tmp_path / "README.md").read_text()
    assert "### smoke, text" in text and "| hybrid |" in text and "- `optimizers`: " in text
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert (tmp_path / "pictures" / "smoke-text-loss.svg").exists()
    assert len((tmp_path / "records.csv").read_text().splitlines()) == 13
    checked = command(f"results_dir={tmp_path}", "--check", entry="report")
    assert checked.returncode == 0, checked.stderr


def test_a_study_that_borrows_says_what_it_waits_for_and_one_that_ranks_by_cost_what_it_needs(
    tmp_path,
):
    words = ["experiment=field", "tracker=none", f"results_dir={tmp_path}"]
    campaign = protocol.Campaign(request.read(words))
    assert campaign.waits() == "; they borrow the trials of experiment=language"
    assert campaign.costs_missing() == ["gpt2_pico-field"]
    fake_results.timed(tmp_path, "gpt2_pico-field", hybrid=0.25)
    assert campaign.costs_missing() == []
    other = protocol.Campaign(request.read(["experiment=smoke", f"results_dir={tmp_path}"]))
    assert other.waits() == "" and other.costs_missing() == []

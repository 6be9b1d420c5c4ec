"""Where to start: each value with the record it comes from, as YAML, as PyTorch, as a command."""

import math
from dataclasses import replace

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from bench.advising import recipe, start
from bench.advising.start import RECIPE
from bench.settings import config
from bench.studies.results import Results
from models import gpt2
from tests.helpers import fake_results
from tests.helpers.advice import HERE, SMALL, settle
from tests.helpers.commands import ROOT


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A results folder with a search of text and a grid of images."""
    folder = tmp_path_factory.mktemp("searched")
    fake_results.fill(folder, "language", ["short"])
    fake_results.fill(folder, "optimizers", ["vision"])
    return Results(folder)


def values(one: start.Start) -> dict[str, start.Value]:
    return {value.name: value for value in one.values}


def test_a_search_gives_rates_and_its_name(searched):
    case = settle(*SMALL)
    one = start.start(searched, HERE, case.arms["hybrid"])
    found = next(t for t in start.tuned(searched) if t.arm == "hybrid" and t.setting.task == "text")
    rate = values(one)["rate, Muon's part"]
    assert rate.source.startswith("language/short")
    assert rate.value == pytest.approx(2e-3 * found.axes["rate"][0], rel=1e-2)
    assert math.isclose(one.optimizer["lr_scale"], found.axes["rate"][0], rel_tol=1e-2)
    assert set(one.scales) == {"adamw", "hybrid"} and not one.apart.near
    # Made-up records do not say what else was searched.
    assert values(one)["momentum"].source == RECIPE


def test_what_was_searched_of_averaging_decay_and_warm_up_is_carried_to_this_horizon():
    axes = {"rate": 2.0, "auxiliary": 0.5, "momentum": 0.1, "decay": 0.4, "warmup": 0.02}
    found = start.Tuned("hybrid", "s/c", HERE, {k: (v, v, v) for k, v in axes.items()}, False)
    case = settle(*SMALL, "train.steps=20000")
    shown, optimizer, warmup = start._recipe(found, HERE, case.arms["hybrid"])
    named = {one.name: one for one in shown}
    assert named["rate, Muon's part"].value == 4e-3 and named["rate, AdamW's part"].value == 2e-3
    assert named["momentum"].value == 0.9 and warmup == 400
    assert optimizer["roles"]["hidden"]["weight_decay"] == pytest.approx(0.4 / (4e-3 * 20000))
    shown, optimizer, warmup = start._recipe(found, replace(HERE, steps=None), case.arms["hybrid"])
    named = {one.name: one for one in shown}
    assert warmup is None and named["warm-up"].value == "2.0% of the run"
    assert "needs train.steps=" in named["weight decay"].source


def test_without_a_record_everything_is_the_recipes_and_says_so(tmp_path):
    case = settle(*SMALL)
    one = start.start(Results(tmp_path), HERE, case.arms["hybrid"])
    assert {value.source for value in one.values} == {RECIPE}
    assert (one.qkv, one.orthogonalizer, one.apart) == ("split", "keller", None)
    demonstration = settle("model=gpt2", "train.device=cpu").arms["hybrid"]
    assert demonstration.schedule["warmup_steps"] == 2  # of 16 steps
    assert start.start(Results(tmp_path), HERE, demonstration).warmup == 10


def test_records_of_other_data_are_no_start(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["vision"])
    one = start.start(Results(tmp_path), HERE, settle(*SMALL).arms["hybrid"])
    assert values(one)["rate, Muon's part"].source == RECIPE


def qkv(monkeypatch, **gains: float):
    """The QKV study with arms that end lower than split by so much."""
    monkeypatch.setattr(
        fake_results,
        "loss",
        lambda declared, condition, arm, seed, rate: 4 - gains.get(arm, 0.0) + 1e-3 * seed,
    )


def test_another_qkv_is_said_only_where_it_is_shown_to_be_lower(tmp_path, monkeypatch):
    qkv(monkeypatch, fused=0.1, per_head=0.001)
    fake_results.fill(tmp_path, "qkv", ["long"])
    found = Results(tmp_path).comparisons("qkv", None)
    assert start.preferred(found, HERE, "split")[0] == "fused"
    early = [replace(one, lines=None) for one in found]
    monkeypatch.setattr("bench.studies.lines.early", lambda one: True)
    name, why = start.preferred(early, HERE, "split")
    assert name == "split" and "early training" in why


def test_no_other_qkv_is_said_for_less_than_the_margin(tmp_path, monkeypatch):
    qkv(monkeypatch, fused=0.015, per_head=0.001)  # the margin is 0.036
    fake_results.fill(tmp_path, "qkv", ["long"])
    name, why = start.preferred(Results(tmp_path).comparisons("qkv", None), HERE, "split")
    assert name == "split" and why.startswith("qkv/long: no other shown lower")


def test_the_grid_of_the_test_holds_the_starts_of_both_and_a_step_beyond():
    assert start.grid({"adamw": 0.5, "hybrid": 3.0}) == [0.25, 0.5, 1, 2, 4, 8]
    assert start.grid({}) == [0.5, 1, 2]


BEGIN = start.Start(
    [start.Value("momentum", 0.9, "s/c")],
    {"adamw": 0.5, "hybrid": 2.0},
    {
        "lr_scale": 2.0,
        "aux_lr_scale": 0.5,
        "roles": {
            "hidden": {"momentum": 0.9, "weight_decay": 0.1},
            "default": {"weight_decay": 0.05},
        },
    },
    "per_head",
    "polar_express",
    7,
    None,
)


def test_the_yaml_trains_what_was_said(tmp_path):
    case = settle(*SMALL, "train.steps=50", "data=text_files", "data.path=mine.txt")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / f"{case.name}.yaml").write_text(recipe.settings_file(case, BEGIN))
    words = [f"hydra.searchpath=[file://{tmp_path}]", f"experiment={case.name}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        found = config.settle(compose("train", overrides=words))
    assert (found.model["width"], found.train.batch_size, found.train.steps) == (32, 4, 50)
    assert (found.data["name"], found.data["path"]) == ("text_files", "mine.txt")
    hidden = found.optimizer["roles"]["hidden"]
    assert (found.optimizer["lr_scale"], hidden["momentum"]) == (2.0, 0.9)
    assert hidden["qkv"]["name"] == "per_head"
    assert hidden["orthogonalizer"]["name"] == "polar_express"
    assert found.optimizer["roles"]["vector"]["weight_decay"] == 0.0
    assert found.schedule["warmup_steps"] == 7


def test_the_lines_of_plain_pytorch_build_the_same(tmp_path):
    case = settle(*SMALL, "train.steps=50")
    names = {"torch": torch}
    names["model"] = gpt2.build(vocab_size=16, layers=1, heads=2, width=8, positions=8)
    exec("\n".join(recipe.in_a_script(case, BEGIN)), names)
    rows = {row["name"]: row for row in names["optimizer"].table}
    attention = rows["transformer.h.0.attn.c_attn.weight"]
    assert attention["matrices"] == [[6, 4, 8]]
    groups = {group["role"]: group for group in names["optimizer"].param_groups}
    assert groups["hidden"]["initial_lr"] == 4e-3 and groups["hidden"]["momentum"] == 0.9
    assert groups["embedding"]["initial_lr"] == 2e-3
    assert groups["embedding"]["weight_decay"] == 0.05 and groups["vector"]["weight_decay"] == 0
    assert groups["hidden"]["lr"] == pytest.approx(4e-3 / 8)  # of the warm-up's 7 steps
    for _ in range(20):
        names["optimizer"].step()
        names["schedule"].step()
    assert (
        names["optimizer"].param_groups[0]["lr"] == names["optimizer"].param_groups[0]["initial_lr"]
    )


def test_the_recipes_own_lines_are_short():
    case = settle(*SMALL)
    plain = replace(
        BEGIN,
        optimizer={
            "lr_scale": 1.0,
            "aux_lr_scale": 1.0,
            "roles": {
                "hidden": {"momentum": 0.95, "weight_decay": 0.1},
                "default": {"weight_decay": 0.1},
            },
        },
        qkv="split",
        orthogonalizer="keller",
    )
    assert recipe.in_a_script(case, plain)[1] == "optimizer = hybrid(model, lr=0.002)"


def test_the_command_asks_for_equally_many_rates_of_both_and_says_how_long_that_takes():
    case = settle(*SMALL, "name=mine", "train.steps=100")
    times = {"forward_backward": 1000.0, "adamw": 0.0, "hybrid": 1000.0}
    one = recipe.test_of(case, BEGIN, times)
    assert one["runs"] == 2 * 5 * 3
    words = one["command"].split()
    assert {"optimizer=adamw,hybrid", "optimizer.lr_scale=0.25,0.5,1,2,4", "seed=0,1,2"} <= set(
        words
    )
    assert {"model.width=32", "train.steps=100", "schedule.warmup_steps=7"} <= set(words)
    assert "name=mine" not in words and words.count("train.steps=100") == 1
    steps = 15 * 100 * (1 + 2)  # seconds, to which evaluations come
    assert steps < one["seconds"] < 100 * steps and one["steps_in_a_day"] == 100
    slow = recipe.test_of(case, BEGIN, {key: 1000 * ms for key, ms in times.items()})
    assert 0 < slow["steps_in_a_day"] < 100


def test_the_yaml_says_where_each_value_comes_from():
    text = recipe.settings_file(settle(*SMALL), BEGIN)
    assert "# momentum: 0.9 (s/c)" in text
    assert yaml.safe_load(text)["optimizer"] == BEGIN.optimizer

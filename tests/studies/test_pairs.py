"""Runs of one's own: which compare, which pair, and what tells groups apart."""

import statistics

import pytest

from bench.records import archive
from bench.studies import pairs
from tests.helpers import fake_results


def benches(folder):
    return pairs.benches(archive.read(folder).runs)


def test_seeds_of_one_setting_are_one_group_and_pair_with_adamw(tmp_path):
    losses = {"adamw": (4.0, 4.2, 4.1), "hybrid": (3.7, 3.8, 3.9)}
    for optimizer, of in losses.items():
        for seed, loss in enumerate(of):
            fake_results.own(tmp_path, optimizer, seed, loss)
    (bench,) = benches(tmp_path)
    assert [one.name for one in bench.groups] == ["adamw", "hybrid"]
    adamw, hybrid = bench.groups
    assert bench.baseline is adamw and adamw.difference is None
    assert hybrid.seeds == [0, 1, 2] and hybrid.difference.n == 3
    differences = [b - a for a, b in zip(*losses.values(), strict=True)]
    assert hybrid.difference.mean == pytest.approx(statistics.mean(differences))
    assert hybrid.difference.low < hybrid.difference.mean < hybrid.difference.high < 0


def test_runs_of_older_code_whose_configs_lack_later_settings_are_of_one_group(tmp_path):
    before = fake_results.own(tmp_path, "adamw", 0, 4.0)["config"]
    later = {"structure": {}, "perturb": 0.0, "other_data": {}, "lora_rank": None}
    of_train = {"save_weights": False, "clip_part": None, "reference_steps": 0}
    config = later | {"train": before["train"] | of_train}
    fake_results.own(tmp_path, "adamw", 1, 4.1, config=config)
    (bench,) = benches(tmp_path)
    assert [(group.name, group.seeds) for group in bench.groups] == [("adamw", [0, 1])]


def test_a_later_setting_at_another_value_is_another_group(tmp_path):
    fake_results.own(tmp_path, "adamw", 0, 4.0)
    optimizer = {"name": "adamw", "lr_scale": 1.0, "embedding_lr_scale": 0.0}
    changed = fake_results.own(tmp_path, "adamw", 1, 4.1, config={"optimizer": optimizer})
    assert changed["config"]["optimizer"] == optimizer
    (bench,) = benches(tmp_path)
    assert len(bench.groups) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens_per_step": 2048},
        {"precision": "bf16"},
        {"mathematics": 2},
        {"config": {"train": {"steps": 999, "device": "cpu"}}},
        {"config": {"train": {"steps": 600, "device": "cuda"}}},
        {"config": {"data": {"name": "other"}}},
        {"config": {"model": {"layers": 9}}},
    ],
    ids=str,
)
def test_what_differs_in_more_than_the_optimizer_is_no_comparison(tmp_path, changes):
    fake_results.own(tmp_path, "adamw", 0, 4.0)
    fake_results.own(tmp_path, "hybrid", 0, 3.8, **changes)
    found = benches(tmp_path)
    assert len(found) == 2
    assert [one.difference for bench in found for one in bench.groups] == [None, None]


def test_where_no_seed_is_common_there_is_no_difference(tmp_path):
    fake_results.own(tmp_path, "adamw", 0, 4.0)
    fake_results.own(tmp_path, "hybrid", 1, 3.8)
    (bench,) = benches(tmp_path)
    assert bench.groups[1].difference is None


def test_the_best_of_adamws_rates_is_the_baseline_and_rates_are_told_apart(tmp_path):
    for rate, loss in ((1.0, 4.0), (2.0, 3.9)):
        fake_results.own(tmp_path, "adamw", 0, loss, rate)
    fake_results.own(tmp_path, "hybrid", 0, 3.8)
    (bench,) = benches(tmp_path)
    names = [one.name for one in bench.groups]
    assert names == ["adamw lr_scale=1.0", "adamw lr_scale=2.0", "hybrid"]
    assert bench.baseline.name == "adamw lr_scale=2.0"
    assert bench.groups[2].difference.mean == pytest.approx(-0.1)


def test_a_choice_of_qkv_names_the_group_by_its_word(tmp_path):
    for qkv in ("split", "per_head"):
        roles = {"hidden": {"_target_": "Muon", "qkv": {"name": qkv, "heads": 4}}}
        config = {"qkv": {"name": qkv}, "optimizer": {"name": "hybrid", "roles": roles}}
        fake_results.own(tmp_path, "hybrid", 0, 4.0, config=config, cell=qkv, qkv=qkv)
    (bench,) = benches(tmp_path)
    assert [one.name for one in bench.groups] == ["hybrid qkv=per_head", "hybrid qkv=split"]


def test_diverged_runs_count_as_runs_and_in_no_mean(tmp_path):
    fake_results.own(tmp_path, "hybrid", 0, 4.0)
    lost = {"status": "diverged", "val_loss": None, "test_loss": None}
    fake_results.own(tmp_path, "hybrid", 1, 9.0, **lost)
    (bench,) = benches(tmp_path)
    (group,) = bench.groups
    assert len(group.runs) == 2 and group.values("test_loss") == {0: 4.0}
    assert bench.baseline is None

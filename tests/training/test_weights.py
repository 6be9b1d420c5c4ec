"""Weights that a run leaves and a run that starts from them; what it forgets of other data."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from bench.records import cell, initial, record
from bench.settings.errors import UserError
from bench.training import prepare, weights
from bench.training.prepare import data
from tests.helpers.commands import TINY, settle
from tests.helpers.runs import same_result, stop_at

EARLY, LATE = "data.years=[1790,1860]", "data.years=[1946,2021]"
OTHER = (
    "data@other_data=sotu",
    "other_data.years=[1790,1860]",
    "other_data.final_eval_sequences=8",
)


@pytest.fixture
def given(train, tmp_path):
    """The folder of a run that has left its weights."""
    _, one, _ = train("train.save_weights=true", EARLY)
    return tmp_path / "runs" / one["cell"]


def built(*words: str):
    settings = settle(*TINY, *words)
    return prepare.model(settings, data(settings))


def test_a_run_starts_where_the_other_ended(train, given):
    _, first, _ = train("train.save_weights=true", EARLY)
    _, again, _ = train(f"init_from={given}", EARLY, "optimizer.lr_scale=0", "train.steps=1")
    assert again["test_loss"] == first["test_loss"] and again["cell"] != first["cell"]


def test_what_is_left_and_what_is_forgotten_are_of_the_weights_that_were_tested(train, tmp_path):
    pytest.importorskip("pytorch_optimizer")
    words = ("optimizer=schedule_free_adamw", "train.save_weights=true", EARLY, *OTHER)
    _, one, _ = train(*words, "data.final_eval_sequences=8")
    assert one["other_test_loss"] == one["test_loss"]  # the other text is the same
    left = f"init_from={tmp_path / 'runs' / one['cell']}"
    _, again, _ = train(left, EARLY, "optimizer.lr_scale=0", "data.final_eval_sequences=8")
    assert again["test_loss"] == one["test_loss"]


@pytest.mark.more
def test_keeping_weights_is_no_other_cell_and_trains_again_only_for_them(train, tmp_path):
    _, one, _ = train(EARLY)
    folder = tmp_path / "runs" / one["cell"]
    assert not (folder / "weights.safetensors").exists()
    outcome, two, said = train("train.save_weights=true", EARLY)
    assert outcome["how"] == "finished" and two["cell"] == one["cell"] and same_result(one, two)
    assert any("without its weights" in line for line in said)
    outcome, _, _ = train("train.save_weights=true", EARLY)
    assert outcome["how"] == "skipped" and (folder / "weights.safetensors").exists()
    outcome, _, _ = train("rerun=true", EARLY)
    assert outcome["how"] == "finished" and not (folder / "weights.safetensors").exists()


@pytest.mark.more
def test_an_interrupted_run_that_keeps_its_weights_goes_on_from_its_checkpoint(train, monkeypatch):
    stop_at(monkeypatch, 5, RuntimeError("gone"))
    train("train.save_weights=true")
    _, _, said = train("train.save_weights=true")
    assert any("from step 4" in line for line in said)


@pytest.mark.more
def test_a_run_from_given_weights_resumes_to_the_same_bits(train, given, tmp_path, monkeypatch):
    words = (f"init_from={given}", LATE, *OTHER)
    _, whole, _ = train(*words, results=tmp_path / "whole")
    stop_at(monkeypatch, 5, RuntimeError("gone"))
    train(*words)
    _, resumed, said = train(*words)
    assert any("from step 4" in line for line in said) and same_result(whole, resumed)
    for key in ("test_loss_start", "other_test_loss_start", "other_test_loss", "forgotten"):
        assert whole[key] == resumed[key]


@pytest.mark.more
def test_what_is_forgotten_is_measured_by_the_given_weights_own_losses(train, given):
    _, source, _ = train("train.save_weights=true", EARLY)
    _, tuned, _ = train(f"init_from={given}", LATE, *OTHER, "optimizer.lr_scale=8")
    assert tuned["other_test_loss_start"] == source["test_loss"]
    assert tuned["forgotten"] == tuned["other_test_loss"] - tuned["other_test_loss_start"]
    assert tuned["test_loss"] < tuned["test_loss_start"]
    _, plain, _ = train(f"init_from={given}", LATE, "optimizer.lr_scale=8")
    assert same_result(plain, tuned)  # testing on more changes nothing else
    assert "forgotten" not in plain and plain["cell"] != tuned["cell"]


def test_the_content_of_the_weights_is_part_of_the_cell_not_their_place(given, tmp_path):
    file = given / "weights.safetensors"
    changed = {name: tensor + 1 for name, tensor in load_file(file).items()}
    (tmp_path / "copy").write_bytes(file.read_bytes())
    save_file(changed, tmp_path / "changed")
    names = [
        cell.name(settle(*TINY, *words))
        for words in (
            [f"init_from={given}"],
            [f"init_from={file}"],
            [f"init_from={tmp_path}/copy"],
            [f"init_from={tmp_path}/changed"],
            [],
        )
    ]
    assert names[0] == names[1] == names[2] and len(set(names)) == 3


def test_a_folder_of_save_pretrained_is_read_tied_head_and_all(tmp_path):
    model = built("seed=5")
    model.save_pretrained(tmp_path)
    found = built(f"init_from={tmp_path}")
    assert isinstance(found, GPT2LMHeadModel)
    for a, b in zip(model.parameters(), found.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.more
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model.width=64"],
            r"transformer\.wte\.weight is \(4096, 32\), the model's is \(4096, 64\)",
        ),
        (["model.layers=1"], r"has transformer\.h\.1\.\S+ and 11 more, which the model has not"),
        (["model.layers=3"], r"is without transformer\.h\.2\.\S+ and 11 more, which the model has"),
    ],
)
def test_weights_of_another_shape_are_refused(given, words, said):
    with pytest.raises(UserError, match=rf"^init_from=\S+weights\.safetensors: {said}$"):
        built(f"init_from={given}", *words)


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match=r"init_from=\S+/text: is no \.safetensors file"):
        built(f"init_from={tmp_path}/text")
    with pytest.raises(UserError, match=r"init_from=nowhere: has no weights; it takes a run's"):
        cell.name(settle(*TINY, "init_from=nowhere"))


def part_of(folder, **changes) -> None:
    part = {"experiment": "smoke", "stage": "final", "condition": "text", "arm": "adamw"}
    record.write_json(folder / "part_of.json", [part | changes])


def test_an_arm_gives_the_weights_of_its_final_run_with_the_same_seed(given, tmp_path):
    asked = "init_from=smoke/text/adamw"
    settings = settle(*TINY, asked, f"results_dir={tmp_path}")
    for changes in ({"stage": "tune"}, {"arm": "hybrid"}):
        part_of(given, **changes)
        with pytest.raises(UserError, match=r"needs bench/train\.py experiment=smoke first"):
            initial.settled(settings)
    part_of(given)
    assert initial.settled(settings).init_from == str(given / "weights.safetensors")
    other = settle(*TINY, asked, "seed=1", f"results_dir={tmp_path}")
    with pytest.raises(UserError, match="no run of it with seed 1 has left weights"):
        initial.settled(other)
    second = given.with_name(f"{given.name}x")
    second.mkdir()
    (second / "weights.safetensors").write_bytes(b"")
    part_of(second)
    with pytest.raises(UserError, match=rf"several runs are that \({given.name}, {second.name}\)"):
        initial.settled(settings)


@pytest.mark.more
@pytest.mark.parametrize(
    ("words", "a", "b"),
    [
        (["optimizer=adamw"], "AdamW", "AdamW"),
        (["optimizer=hybrid"], "Muon", "Muon"),
        (["optimizer=hybrid", "structure={*.lora_A.weight:head}"], "AdamW", "Muon"),
    ],
)
def test_adapters_go_to_the_optimizers_asked_for_and_nothing_else_moves(
    train, given, tmp_path, words, a, b
):
    _, one, _ = train(f"init_from={given}", "lora_rank=2", "train.save_weights=true", *words)
    takes = {(row["name"].split(".")[-2], row["optimizer"]) for row in one["routing"]}
    assert takes == {("lora_A", a), ("lora_B", b)}
    assert one["optimizer_state_bytes"]["predicted"] == one["optimizer_state_bytes"]["total"]
    before = load_file(given / weights.WEIGHTS)
    after = load_file(tmp_path / "runs" / one["cell"] / weights.WEIGHTS)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(after[name].any() for name in after.keys() - before.keys())

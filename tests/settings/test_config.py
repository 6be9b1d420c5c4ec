"""Bad input gets one clear line before any work; the cell covers what can change a result."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_method
from omegaconf import OmegaConf

from bench.records import cell
from bench.settings import config
from bench.settings.errors import UserError
from bench.training import prepare, run
from tests.helpers.commands import ROOT, TINY, settle

GROUPS = [
    (group.name, file.stem)
    for group in (ROOT / "conf").iterdir()
    if group.is_dir() and group.name != "claim"  # no settings: tests/verdicts/test_claims.py
    for file in group.glob("*.yaml")
]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+train.foo=3", ["train.foo", "no such setting", "batch_size"]),
        ("+sed=1", ["sed", "no such setting", "seed"]),
        ("+optimizer.lrr=1", ["optimizer.lrr", "lr_scale"]),
        ("+qkv.heads_per_group=2", ["qkv.heads_per_group", "no such setting"]),
        ("train.steps=0", ["train.steps=0", "at least 1"]),
        ("train.steps=null", ["train.steps", "train.time_limit"]),
        ("train.time_limit=-1", ["train.time_limit=-1", "above 0"]),
        ("train.batch_size=0", ["train.batch_size=0", "at least 1"]),
        ("train.eval_every=0", ["train.eval_every=0", "at least 1"]),
        ("seed=-1", ["seed=-1", "at least 0"]),
        ("optimizer.lr_scale=-1", ["optimizer.lr_scale=-1", "0 or above"]),
        ("optimizer.lr_scale=fast", ["optimizer.lr_scale=fast", "number"]),
        ("optimizer.roles.hidden.lr=-0.1", ["optimizer.roles.hidden.lr=-0.1"]),
        ("train.precision=fp8", ["train.precision=fp8", "auto, fp32, bf16"]),
        ("train.device=tpu", ["train.device=tpu", "cpu"]),
        ("data=fashion_mnist", ["data=fashion_mnist", "images", "text", "data=sotu"]),
        ("data=text_files", ["data.path", "needs a value"]),
        ("~qkv", ["qkv", "was removed but is needed"]),
        ("~optimizer", ["optimizer", "was removed but is needed"]),
        ("model=hub", ["model.source", "needs a value"]),
        ("schedule.decay_fraction=2", ["schedule.decay_fraction=2", "between 0 and 1"]),
        ("schedule.warmup_steps=-1", ["schedule.warmup_steps=-1", "0 or above"]),
        ("schedule.warmup_steps=abc", ["schedule.warmup_steps=abc", "whole number"]),
        ("schedule.warmup_fraction=2", ["schedule.warmup_fraction=2", "between 0 and 1"]),
        (
            "schedule.warmup_fraction=0.1 train.steps=null train.time_limit=9",
            ["schedule.warmup_fraction=0.1", "train.steps"],
        ),
        ("optimizer.embedding_lr_scale=-1", ["optimizer.embedding_lr_scale=-1", "0 or above"]),
        ("tracker.mode=foo", ["tracker.mode=foo", "offline or online"]),
        ("optimizer.roles=null", ["optimizer.roles=None", "mapping, with hidden"]),
        ("model.task=foo", ["model.task=foo", "text or images"]),
        ("data=wikitext +data.parts.train.token=5", ["data.parts.train.token", "tokens"]),
        ("+schedule.fraction=2", ["schedule.fraction", "no such setting"]),
    ],
)
def test_a_mistake_names_the_setting_and_what_is_accepted(override, words):
    with pytest.raises(UserError) as caught:
        settle(*override.split())
    assert all(word in str(caught.value) for word in words), caught.value
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("optimizer=adamm", "adamw"),
        ("sed=1", "sed"),
        ("train.stepz=1", "stepz"),
        ("train.steps=abc", "train.steps"),
        ("train.batch_size=1.5", "train.batch_size"),
        ("train.batch_size=1e13", "train.batch_size"),
    ],
)
def test_what_hydra_finds_it_says_in_its_own_words(override, word):
    with pytest.raises(ConfigCompositionException) as caught:
        settle(override)
    chain = f"{caught.value} {caught.value.__cause__}"
    assert word in chain


def test_several_files_of_a_group_are_no_run():
    """Hydra would merge them, and the last would win."""
    with pytest.raises(UserError, match=r"qkv=\[split,per_head\]: .* -m qkv=split,per_head"):
        config.refuse_lists(["seed=1", "qkv=[split,per_head]"])
    config.refuse_lists(["optimizer.betas=[0.9,0.95]", "qkv=split", "train.steps=3"])


def start(tmp_path: Path, *overrides: str) -> None:
    settings = settle(*TINY, "tracker=none", f"results_dir={tmp_path}", *overrides)
    run.run(settings, cell.name(settings), lambda line: None)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["qkv=head_groups", "qkv.heads_per_group=3"], ["heads_per_group=3", "4 heads"]),
        (["model.heads=5"], ["model.heads=5", "model.width=32"]),
        (["model.layers=0"], ["model.layers=0"]),
        (["optimizer.roles.hidden._target_=torch.optim.Moun"], ["torch.optim.Moun"]),
        (["+optimizer.roles.hidden.betta=1"], ["betta"]),
        (["+optimizer.roles.hiden={_target_: torch.optim.SGD, lr: 1}"], ["hiden", "hidden"]),
        (["qkv=head_groups", "qkv.heads_per_group=abc"], ["heads_per_group=abc", "whole number"]),
        (["orthogonalizer.steps=abc"], ["orthogonalizer.steps=abc", "whole number"]),
        (["schedule._target_=bench.training.schedule.nope"], ["nope"]),
        (["qkv.output=both"], ["qkv.output=both", "per_head"]),
        (["orthogonalizer.coefficients=best"], ["coefficients=best", "keller"]),
        (["orthogonalizer.steps=0"], ["orthogonalizer.steps=0", "at least 1"]),
        (["orthogonalizer.dtype=fp8"], ["orthogonalizer.dtype=fp8", "bf16"]),
        (["train.sequence_length=512"], ["train.sequence_length=512", "256 positions"]),
        (["data.eval_sequences=0"], ["data.eval_sequences=0"]),
        (["train.average_last=0"], ["train.average_last=0", "share above 0"]),
        (["train.average_last=1.5"], ["train.average_last=1.5", "at most 1"]),
        (["train.batch_size=10000000000000"], ["train.batch_size=1", "GB, this machine has"]),
        (["train.batch_size=3000000"], ["train.batch_size=3000000: a forward", "fewer than"]),
        (["structure={*.c_fd.weight: vector}"], ["*.c_fd.weight", "h.0.mlp.c_fc.weight"]),
        (["structure={*.c_fc.weight: vektor}"], ["c_fc.weight", "role=vektor", "embedding"]),
        (["structure={*.c_fc.weight: {layout: batch}}"], ["c_fc.weight", "batch", "(32, 128)"]),
    ],
)
def test_a_mistake_that_the_model_shows_is_said_before_training(tmp_path, overrides, words):
    with pytest.raises(UserError) as caught:
        start(tmp_path, *overrides)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


def test_text_shorter_than_a_sequence_and_a_missing_file(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(UserError, match="32"):
        start(tmp_path, "data=text_files", f"data.path={short}")
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        start(tmp_path, "data=text_files", f"data.path={tmp_path}/nowhere.txt")


def test_a_results_path_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        start(tmp_path / "file")
    with pytest.raises(UserError, match="is a file"):
        start(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["mps", "xpu", "cuda:1"])
def test_another_device_is_refused_in_a_line(name):
    with pytest.raises(UserError) as refused:
        settle(f"train.device={name}")
    assert str(refused.value) == f"train.device={name}: must be one of auto, cpu, cuda"


def test_cuda_without_cuda(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"train\.device=cuda"):
        settle("train.device=cuda")


def test_compile_without_a_compiler(monkeypatch):
    monkeypatch.setattr(config.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"train\.compile=true.*compiler"):
        settle("train.compile=true", "train.device=cpu")


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_every_file_of_every_group_composes_and_checks(group, name, tmp_path):
    (tmp_path / "some.txt").write_text("text")
    overrides = [f"{group}={name}"]
    if name == "text_files":
        overrides.append(f"data.path={tmp_path}/some.txt")
    if name == "hub":
        overrides.append("model.source=gpt2")
    if name == "own":
        overrides.append("model._target_=models.gpt2.build")
    block = settle_any(overrides)
    if group != "experiment":
        assert getattr(block, group)["name"] == name
    assert get_method(block.model["_target_"])


def settle_any(overrides: list[str]) -> config.Settings:
    """Settle; image data needs an image model."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    if cfg.data.task == "images" and cfg.model.task == "text":
        overrides = ["model=vit_nano", *overrides]
    return settle(*overrides)


def test_the_model_picks_its_data_and_the_command_line_wins():
    assert settle("model=vit").data["name"] == "fashion_mnist"
    assert settle("model=vit", "data=cifar10").data["name"] == "cifar10"
    assert settle("model=gpt2", "data=wikitext").data["name"] == "wikitext"
    assert settle("model=gpt2", "train.steps=7").train.steps == 7
    assert settle("model=vit", "schedule=cosine").schedule["name"] == "cosine"


def test_a_models_file_may_say_what_its_parameters_are(tmp_path):
    text = (ROOT / "conf" / "model" / "gpt2_nano.yaml").read_text()
    text += "\nstructure:\n  '*.wpe.weight': hidden\n  '*.c_fc.*': {role: hidden}\n"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(text)
    path = f"hydra.searchpath=[file://{tmp_path}]"
    said = settle(path, "model=mine").structure
    assert said == {"*.wpe.weight": "hidden", "*.c_fc.*": {"role": "hidden"}}
    more = settle(
        path, "model=mine", "structure={*.wpe.weight: vector, *.ln_1.*: vector}"
    ).structure
    assert list(more.items())[-1] == ("*.ln_1.*", "vector")
    assert more["*.wpe.weight"] == "vector" and len(more) == 3


def test_file_names_are_the_names_in_them():
    for group, name in GROUPS:
        block = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
        block = block.get(group, block)
        if group != "experiment":
            assert block.name == name


def test_prepare_gives_the_same_weights_for_the_same_seed():
    settings = settle(*TINY)
    data = prepare.data(settings)
    first, second = (prepare.model(settings, data).state_dict() for _ in range(2))
    assert all((first[k] == second[k]).all() for k in first)


def test_a_warmup_by_its_share_is_the_run_with_that_many_steps():
    share = settle("train.steps=200", "schedule.warmup_fraction=0.125")
    assert cell.name(share) == cell.name(settle("train.steps=200", "schedule.warmup_steps=25"))
    assert cell.name(share) != cell.name(settle("train.steps=200"))

"""What advice is asked for: one's own models too; mistakes in a line, before torch is imported."""

import subprocess
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from bench import advise
from bench.settings import command
from bench.settings.errors import UserError
from bench.training import sweep
from tests.helpers.advice import SMALL, settle


def test_the_case_has_every_optimizer_its_batch_and_its_horizon_where_it_was_said():
    case = settle(*SMALL)
    assert next(iter(case.arms)) == "adamw" and len(case.arms) == 6
    assert (case.name, case.units, case.steps) == ("gpt2_nano-cpu-4x32", 128, None)
    assert settle("model=gpt2", "train.steps=9").steps == 9
    assert settle("model=gpt2").steps is None  # its file's steps are those of a demonstration


def test_images_have_no_sequences():
    case = settle("model=vit_nano", "train.batch_size=16", "train.device=cpu")
    assert (case.name, case.unit, case.units) == ("vit_nano-cpu-16", "images", 16)


def test_what_parameters_are_can_be_said():
    assert settle(*SMALL, "structure={*.c_fc.weight: vector}").settings.structure


MISTAKES = [
    ("train.batch_size=0", "train.batch_size=0: must be a whole number above 0"),
    ("train.steps=many", "train.steps=many: must be a whole number above 0"),
    ("train.eval_every=5", "train.eval_every: has no effect here"),
    ("model=gpt2 schedule.warmup_steps=5", "schedule.warmup_steps: has no effect here"),
    ("name=a/b", "name=a/b: must be letters"),
    ("+nope=1", "nope: no such setting"),
    ("results_dir=", "results_dir=: needs the name of a folder"),
]


@pytest.mark.parametrize(("word", "said"), MISTAKES, ids=[word for word, _ in MISTAKES])
def test_a_mistake_is_named(word, said):
    with pytest.raises(UserError) as caught:
        settle(*word.split())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model=gpt3", "model=gpt3: no such file of conf/model; perhaps gpt2"),
        ("optimizer=muon", "optimizer=muon: advice is on all of adamw, hybrid"),
        ("modle=gpt2", "modle: no such setting; perhaps model"),
        ("--nope", "--nope: no such option"),
    ],
)
def test_a_mistake_ends_the_command_with_status_1_in_two_lines(word, said, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench/advise.py", word])
    monkeypatch.setattr(sweep, "outcomes", [])
    try:
        assert advise.main() == 1
    finally:
        GlobalHydra.instance().clear()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 2 and said in "\n".join(lines)


def test_the_short_form_names_a_builder():
    words = command.in_full(["model=pkg.mine:build", "model=gpt2", "seed=1"])
    assert words == [
        *("model=own", "model._target_=pkg.mine.build", "model.name=pkg.mine.build"),
        *("model=gpt2", "seed=1"),
    ]


def test_a_builder_of_ones_own_takes_the_datas_sizes_and_what_is_added():
    words = command.in_full(["model=models.gpt2:build", "train.device=cpu"])
    words += [f"+model.{key}" for key in ("layers=1", "heads=2", "width=8", "positions=32")]
    case = settle(*words)
    assert case.name == "models.gpt2.build-cpu-8x256"
    assert case.settings.model["width"] == 8 and case.choices["model"] == "own"


def test_nothing_of_the_settings_imports_torch():
    code = "import sys; import bench.advising.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

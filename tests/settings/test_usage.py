"""--help: every setting of a file with its comment, in 80 columns."""

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bench.settings import usage
from tests.helpers.commands import ROOT

FILES = ("train", "step", "ortho", "advise")


def shown(file: str, *overrides: str) -> str:
    import bench.advising.settings
    import bench.laboratory.settings
    import bench.stepping.settings  # noqa: F401 - the schemas

    usage.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(file, overrides=list(overrides), return_hydra_config=True)
        return str(cfg.hydra.help.template)


@pytest.mark.parametrize("file", FILES)
def test_help_fits_80_columns_and_has_every_setting(file):
    text = shown(file)
    assert max(map(len, text.splitlines())) <= 80
    own = OmegaConf.load(ROOT / "conf" / f"{file}.yaml")
    for key, value in own.items():
        if key in ("defaults", "hydra"):
            continue
        names = [f"{key}.{name}" for name in value] if OmegaConf.is_dict(value) and value else [key]
        for name in names:
            assert f"\n  {name}=" in text, name


def test_comments_stand_beside_settings_also_where_they_run_on_and_of_groups():
    text = " ".join(shown("train").split())
    assert "train.steps=150 optimizer steps; null: train.time_limit alone ends the run" in text
    assert "optimizer.lr_scale=1.0 multiplies every rate" in text
    assert "optimizer=hybrid: Muon on the hidden matrices" in text
    assert "orthogonalizer.steps=5" in text
    laboratory = " ".join(shown("ortho").split())
    said = "device=auto cpu | cuda | auto: where the cases are iterated; their records then go to"
    assert said in laboratory


def test_the_values_are_those_that_were_typed():
    text = shown("train", "train.steps=7", "qkv=head_groups", "optimizer=adamw")
    assert "\n  train.steps=7 " in text and "\n  qkv.heads_per_group=2" in text
    assert "\n\noptimizer=adamw" in text


def test_hydra_prints_it_with_dollars_as_they_are():
    done = subprocess.run(
        [sys.executable, "bench/train.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "optimizer.roles.hidden.qkv=${qkv}" in done.stdout or "$" not in done.stdout

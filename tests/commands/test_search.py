"""Hydra as its users know it: what a job returns, what it leaves of Hydra, a search by Optuna."""

import math
import tomllib

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from bench import train
from bench.training import sweep, trainer
from tests.helpers.commands import ROOT, TINY, command, records
from tests.helpers.runs import stop_at

SEARCHES = sorted((ROOT / "conf/hydra/sweeper").glob("*.yaml"))
WORDS = [*TINY, "tracker=none"]


@pytest.fixture
def job(monkeypatch, tmp_path):
    """What the task function returns under Hydra's configuration of a single run."""
    monkeypatch.setattr(sweep, "outcomes", [])

    def call(*overrides):
        words = [*WORDS, f"results_dir={tmp_path}", *overrides]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            whole = compose("train", overrides=words, return_hydra_config=True)
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
        HydraConfig.instance().set_config(whole)
        with open_dict(whole):
            del whole["hydra"]
        return train.job(whole)

    return call


def test_a_run_returns_its_validation_loss_the_first_time_and_when_it_is_skipped(job, tmp_path):
    loss = job()
    (one,) = records(tmp_path).values()
    assert loss == one["val_loss"] == job()
    assert [outcome["how"] for outcome in sweep.outcomes] == ["finished", "skipped"]


def test_a_diverged_run_returns_infinity_whatever_its_last_evaluation_was(job, monkeypatch):
    stop_at(monkeypatch, 4, trainer.Diverged("too far"))
    assert job() == job() == math.inf
    assert [outcome["how"] for outcome in sweep.outcomes] == ["diverged", "skipped"]


def test_a_failed_run_returns_nothing_and_is_listed(job, monkeypatch):
    stop_at(monkeypatch, 4, ValueError("broken"))
    assert job() is None
    assert sweep.exit_status() == 1


def test_what_hydra_was_told_lies_beside_the_settings(job, tmp_path):
    job("seed=5")
    (folder,) = (tmp_path / "runs").iterdir()
    typed = [*WORDS, f"results_dir={tmp_path}", "seed=5"]
    assert OmegaConf.load(folder / "overrides.yaml") == typed
    own = OmegaConf.load(folder / "hydra.yaml")
    assert list(own) == ["hydra"] and own.hydra.overrides.task == typed
    assert OmegaConf.load(folder / "config.yaml").seed == 5


@pytest.mark.parametrize("file", SEARCHES, ids=[file.stem for file in SEARCHES])
def test_every_search_belongs_to_an_extra_and_names_settings_that_there_are(file):
    extra, package = sweep.PLUGINS[file.stem.split("_")[0]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"][extra][0].startswith(package)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = compose("train")
    for name in OmegaConf.load(file).params:
        assert OmegaConf.select(settings, name) is not None, name


def test_a_search_that_is_not_installed_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sweep.PLUGINS, "optuna", ("optuna", "no-such-package"))
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "hydra/sweeper=optuna_rate"])
    with pytest.raises(SystemExit) as end:
        train.main()
    assert end.value.code == 1
    said = "error: hydra/sweeper=optuna_rate: needs pip install -e '.[optuna]'\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.more
def test_the_same_search_again_trains_nothing_and_finds_the_same(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["-m", "hydra/sweeper=optuna_rate", "hydra.sweeper.n_trials=2", "seed=3"]
    first, again = (command(*search, *WORDS, f"results_dir={tmp_path}") for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "2 finished" in first.stdout and "2 skipped" in again.stdout
    (made,) = {one["sweep"] for one in records(tmp_path).values()}
    assert (tmp_path / "sweeps" / made / "optimization_results.yaml").exists()
    best = min(records(tmp_path).values(), key=lambda one: one["val_loss"])
    said = f"best: optimizer.lr_scale={best['lr_scale']} (val loss {best['val_loss']:.4f}); "
    assert said in first.stdout and said in again.stdout


@pytest.mark.more
def test_a_search_whose_runs_all_fail_ends_in_a_line(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["-m", "hydra/sweeper=optuna_rate", "hydra.sweeper.n_trials=1"]
    done = command(*search, *WORDS, "train.steps=0", f"results_dir={tmp_path}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: no run of this search ended with a loss"

"""Settings of the step benchmark, as its command line gives them."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bench.stepping import settings as step_settings
from tests.helpers.commands import ROOT

SMALL = ["model.layers=2", "model.width=32", "model.heads=4", "rounds=3", "train.device=cpu"]
TEXT = [*SMALL, "train.sequence_length=32"]


def settle(*overrides: str) -> step_settings.Benchmark:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("step", overrides=list(overrides), return_hydra_config=True)
        own = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        return step_settings.settle(own, cfg.hydra)

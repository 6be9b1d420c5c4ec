"""Settings of the laboratory, as its command line gives them."""

from hydra import compose, initialize_config_dir

from bench.laboratory import settings
from tests.helpers.commands import ROOT


def settle(*overrides: str) -> settings.Settings:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return settings.settle(compose("ortho", overrides=list(overrides)))

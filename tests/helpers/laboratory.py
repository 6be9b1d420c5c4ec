"""Settings of the laboratory, as its command line gives them, and small matrices for checks."""

from hydra import compose, initialize_config_dir

from bench.laboratory import matrices, settings
from bench.laboratory.settings import Source
from bench.laboratory.statements import directions
from bench.laboratory.statements.directions import Case
from tests.helpers.commands import ROOT


def settle(*overrides: str) -> settings.Settings:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return settings.settle(compose("ortho", overrides=list(overrides)))


def case(kind: str, value: float | None = None, shape: tuple[int, int] = (24, 32)) -> Case:
    """Two small matrices of a kind, with their singular vectors."""
    source = Source(kind, value)
    return directions.case(str(source), matrices.formed(source, shape, 2, seed=0))

"""The table of fits: it goes on where it was stopped, and stands on the limit of large matrices."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from bench.laboratory import fit_table, fitting, recursion, spectra
from bench.laboratory.settings import Settings, Source
from bench.settings.schema import CONF
from optimizers.coefficients import KELLER

SHAPES = [(64, 64), (64, 128)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The table of two small shapes; returns (its record, what was said)."""
    monkeypatch.setattr(fit_table, "SHAPES", SHAPES)
    monkeypatch.setattr(fit_table.search, "NODES", 256)
    monkeypatch.setattr(fit_table, "SAMPLED", 64)
    block = OmegaConf.to_container(OmegaConf.load(CONF / "ortho.yaml"))["fitting"]

    def start(**changes):
        said: list[str] = []
        settings = Settings(
            *(0, str(tmp_path), "cpu"),
            sources=[Source("gaussian")],
            pictures=True,
            fitting=block | {"starts": 4} | changes,
        )
        return fit_table.run(settings, said.append), said

    return start


def stop_after(monkeypatch, fits: int) -> None:
    """Ctrl-C in the fit after so many."""
    original, done = fit_table.fit, []

    def stopping(*arguments):
        if len(done) == fits:
            monkeypatch.setattr(fit_table, "fit", original)
            raise KeyboardInterrupt
        done.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(fit_table, "fit", stopping)


def test_a_table_that_was_stopped_goes_on(run, tmp_path, monkeypatch):
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run()
    file = tmp_path / "ortho" / "fits.json"
    before = json.loads(file.read_text())["fits"]
    assert len(before) == 3
    found, said = run()
    assert len(said) == 2 and "64x128, 5 steps" in said[0]
    assert found["fits"][:3] == before
    assert [fit_table.key(one) for one in found["fits"]] == [(s, t) for s in SHAPES for t in (3, 5)]
    assert file.with_suffix(".svg").exists()
    text = file.read_text()
    assert "all 4 fits are there" in run()[1][0] and file.read_text() == text


def test_other_settings_go_beside_and_replacing_is_never_worse(run, tmp_path):
    found, _ = run(starts=8)
    text = (tmp_path / "ortho" / "fits.json").read_text()
    other, _ = run(starts=3)
    assert (tmp_path / "ortho" / "fits.json").read_text() == text
    assert json.loads((tmp_path / "ortho" / "fits.new.json").read_text())["fits"] == other["fits"]
    again, _ = run(starts=3, replace=True)
    assert again["declared"]["starts"] == 3 and len(again["fits"]) == 4
    for old, new in zip(found["fits"], again["fits"], strict=True):
        assert new["single"]["mse"] <= old["single"]["mse"] * (1 + 1e-9)


def test_a_triple_is_at_least_as_good_as_with_a_ceiling_and_as_keller(run):
    for one in run()[0]["fits"]:
        assert one["single"]["mse"] <= one["bounded"]["mse"] * (1 + 1e-9)
        assert one["bounded"]["mse"] < one["keller"]["mse"]
        assert one["bounded"]["top"] < 1.6


@pytest.mark.parametrize("shape", [(512, 512), (256, 1024), (1024, 256)])
@pytest.mark.parametrize("steps", [3, 5])
def test_the_limit_is_that_of_sampled_matrices(shape, steps):
    limit = spectra.limit(*shape, 4096)
    rows = spectra.gaussian(*shape, 20, seed=0)
    assert np.mean(limit**2) * min(shape) == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(np.quantile(rows, [0.1, 0.5, 0.9]),
                               np.quantile(limit, [0.1, 0.5, 0.9]), rtol=0.02)  # fmt: skip
    errors = [recursion.mse(values, [KELLER] * steps).mean for values in (limit, rows)]
    assert errors[0] == pytest.approx(errors[1], rel=0.03)


def test_a_torn_record_is_begun_anew(run, tmp_path):
    file = tmp_path / "ortho" / "fits.json"
    file.parent.mkdir()
    file.write_text("[1")
    assert len(run()[0]["fits"]) == 4
    assert fitting.record_file(Path(file), replace=False).name == "fits.new.json"

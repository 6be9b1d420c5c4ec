"""Spectra of momenta: by kind and step, normalised, and small enough to be committed."""

import json

import numpy as np
import pytest

from bench.laboratory import matrices, momentum_spectra, recursion
from bench.settings.errors import UserError
from optimizers.coefficients import KELLER
from tests.helpers.commands import ROOT
from tests.helpers.laboratory import settle

KINDS = {"q", "k", "v", "attention output", "mlp in", "mlp out"}


@pytest.fixture
def measured(train, tmp_path):
    """A run's spectra at its steps 3 and 6: (the record, what was said)."""
    train("train.save_momentum_every=3")
    said: list[str] = []
    asked = settle("spectra=true", f"results_dir={tmp_path}")
    return momentum_spectra.run(asked, said.append), said


def test_every_kind_at_every_step(measured, tmp_path):
    found, said = measured
    assert {(g["kind"], g["step"]) for g in found["groups"]} == {
        (k, t) for k in KINDS for t in (3, 6)
    }
    assert all(g["matrices"] == 2 for g in found["groups"])  # layers
    assert "2 steps" in said[0] and (tmp_path / "ortho" / "momentum_spectra.svg").exists()
    assert {tuple(g["shape"]) for g in found["gaussian"]} == {
        tuple(g["shape"]) for g in found["groups"]
    }


def test_they_are_those_of_the_matrices(measured, tmp_path):
    """The same as source momentum reads, of norm 1; summaries say what they are named for."""
    found, _ = measured
    for one in found["spectra"]:
        assert np.square(one["values"]).sum() == pytest.approx(1, rel=1e-3)
    problems = list(matrices.problems(settle("sources=momentum", f"results_dir={tmp_path}")))
    rows = [row for p in problems if p.shape == (32, 32) for row in p.spectra]
    for one in (s for s in found["spectra"] if s["step"] == 6 and s["shape"] == [32, 32]):
        assert any(np.allclose(one["values"], row, rtol=1e-3) for row in rows)


def test_a_summary_knows_extremes():
    flat, steep = np.full((3, 4), 0.5), np.array([[1.0, 0, 0, 0]])
    assert momentum_spectra.summary(flat)["effective_rank"]["median"] == pytest.approx(4)
    assert momentum_spectra.summary(flat)["condition"]["median"] == 1
    assert momentum_spectra.summary(steep)["stable_rank"]["median"] == 1
    assert momentum_spectra.summary(steep)["effective_rank"]["median"] == 1
    error = recursion.mse(flat, [KELLER] * 5).mean
    assert momentum_spectra.summary(flat)["mse"]["5"]["keller"] == pytest.approx(error, rel=1e-3)


def test_what_ships_is_read_where_nothing_was_measured(tmp_path):
    """Two models, six kinds, three layers, three steps; and a record of one's own goes first."""
    found = momentum_spectra.load(str(tmp_path))
    assert {one.kind for one in found} == KINDS and len({one.run for one in found}) == 2
    assert len(found) == 2 * 6 * 3 * 3
    assert (ROOT / "results" / "ortho" / "momentum_spectra.json").stat().st_size < 500_000
    own = {"spectra": [{**found[0]._asdict(), "values": found[0].values.tolist()}]}
    (tmp_path / "ortho").mkdir()
    file = tmp_path / "ortho" / "momentum_spectra.json"
    file.write_text(json.dumps(own))
    assert len(momentum_spectra.load(str(tmp_path))) == 1
    file.write_text("{}")
    with pytest.raises(UserError, match="spectra=true writes it"):
        momentum_spectra.load(str(tmp_path))


def test_nothing_to_read_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match=r"save_momentum_every=N first"):
        momentum_spectra.run(settle("spectra=true", f"results_dir={tmp_path}"), print)

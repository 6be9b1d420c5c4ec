"""The laboratory's pictures: panels that are compared have one scale."""

from types import SimpleNamespace

import numpy as np

from bench.laboratory import charts


def record(method: str, counts: list[int]) -> dict:
    histogram = {"low": 0.0, "high": 1.5, "counts": counts}
    common = {"form": "recursion", "status": "ok", "steps": 5, "mse": {"mean": 0.1}}
    return common | {"method": method, "histogram": histogram}


def test_spectra_after_the_steps_share_their_axis(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(charts.charts, "save", lambda figure, path: drawn.append(figure))
    problem = SimpleNamespace(
        shape=(64, 64), source="gaussian", spectra=np.geomspace(0.001, 1, 64)[None]
    )
    records = [record("keller", [1, 3]), record("exact", [0, 4]), record("taylor", [2, 2])]
    charts.spectra(tmp_path, problem, records)
    _before, *after = (ax for ax in drawn[0].axes if ax.get_visible())
    assert len(after) == 3 and {ax.get_ylim() for ax in after} == {(0, 1.05)}

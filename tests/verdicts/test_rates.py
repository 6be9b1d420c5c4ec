"""How far a best rate moves from one condition to another, by grids of rates."""

import math

import pytest

from bench.studies import study
from bench.studies.results import Results
from bench.verdicts import judging, rates
from bench.verdicts.claims import Claim
from bench.verdicts.judging import CONFIRMED, OPEN, REFUTED
from tests.helpers import fake_results

GRID = [1, 2, 4, 8, 16]
ASKED = {"experiment": "width", "arm": "spectral_rule", "conditions": ["width_64", "width_256"]}


def test_the_lowest_point_of_a_parabola_is_found_between_the_rates():
    for best in (2.2, 3.7, 4.0, 7.5):
        losses = {rate: 3 + 0.1 * math.log(rate / best) ** 2 for rate in GRID}
        assert rates.lowest(losses) == pytest.approx(best, rel=1e-9)
    far = {1: 5.0, 2: 3.1, 4: 3.0, 8: 3.2, 16: math.inf}  # only the neighbours count
    x, y = [math.log(r) for r in (2, 4, 8)], (3.1, 3.0, 3.2)
    top, bottom = (y[0] - y[2]) / 2, y[0] - 2 * y[1] + y[2]
    assert rates.lowest(far) == pytest.approx(math.exp(x[1] + top / bottom * math.log(2)))


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0, 3.0, 4.0, 5.0],
        [5.0, 4.0, 3.0, 2.0, 1.0],
        [5.0, 4.0, 3.0, math.inf, math.inf],
        [math.inf] * 5,
    ],
)
def test_a_best_rate_at_the_edge_or_beside_a_diverged_run_is_unknown(values):
    assert rates.lowest(dict(zip(GRID, values, strict=True))) is None


def fill(folder, best: dict[str, list[float]], arm: str = "spectral_rule", **changes) -> None:
    """Tuning runs of two seeds; best: by condition the best rate of each."""
    declared = study.load("width")
    for condition, of in best.items():
        for seed, centre in zip(declared.tune_seeds, of, strict=False):
            for rate in declared.grid:
                fake = fake_results.one(declared, "tune", condition, arm, seed, rate)
                fake["val_loss"] = 3 + 0.1 * math.log(rate / centre) ** 2
                fake_results.write(folder, fake | changes)


def test_the_quotient_of_the_best_rates_is_by_seed(tmp_path):
    fill(tmp_path, {"width_64": [3.0, 4.0], "width_256": [3.6, 4.4]})
    fill(tmp_path, {"width_64": [7.0, 7.0], "width_256": [2.0, 2.0]}, arm="match_rms_adamw")
    (found,) = rates.moved(Results(tmp_path), **ASKED)
    assert (found.low, found.high, found.n) == (pytest.approx(1.1), pytest.approx(1.2), 2)
    assert found.value == pytest.approx(math.sqrt(1.1 * 1.2))
    assert len(found.records) == 20 and all("spectral" in file for file in found.records)
    assert "3, 4 to 3.6, 4.4" in found.note


@pytest.mark.parametrize(
    ("there", "verdict"),
    [([3.6, 4.4], CONFIRMED), ([6.0, 7.8], REFUTED), ([1.6, 2.2], REFUTED), ([3.6, 6.0], OPEN)],
)
def test_it_stays_put_if_no_seed_moves_it_by_a_factor_of_root_two(there, verdict, tmp_path):
    fill(tmp_path, {"width_64": [3.0, 4.0], "width_256": there})
    measure = [{"_target_": "bench.verdicts.rates.moved", **ASKED}]
    claim = Claim("x", "it stays", "someone", "training", measure, {"between": [0.7071, 1.4142]})
    assert judging.judge(claim, Results(tmp_path)).verdict == verdict


def test_an_edge_is_undecided_and_a_seed_without_its_grid_is_missing(tmp_path):
    fill(tmp_path, {"width_64": [3.0, 4.0], "width_256": [0.5, 4.0]})
    (found,) = rates.moved(Results(tmp_path), **ASKED)
    assert found.undecided and "edge" in found.undecided and found.records
    file = next((tmp_path / "records" / "width").glob("*width_256-spectral_rule-s101-4-tune.json"))
    file.unlink()
    (found,) = rates.moved(Results(tmp_path), **ASKED)
    assert found.missing and "experiment=width" in found.missing and "1 so far" in found.missing

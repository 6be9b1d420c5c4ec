"""The coefficients' statements on momenta: what Gaussian matrices confirm may fail there."""

import json

import numpy as np
import pytest

from bench.laboratory import matrices, recursion, spectra
from bench.laboratory.momentum_spectra import Spectrum
from bench.laboratory.settings import Settings, Source
from bench.laboratory.statements import momenta, official, run
from bench.studies.results import Results
from bench.verdicts import claims, judging
from bench.verdicts.judging import DEPENDS
from optimizers.coefficients import KELLER, TAYLOR
from tests.helpers.commands import ROOT


def found(make, runs=("a", "b")) -> list[Spectrum]:
    """Spectra of two runs, of three layers each; `make` gives them by seed."""
    return [
        Spectrum(run, 1, "q", layer, (64, 64), make(10 * i + layer)[0])
        for i, run in enumerate(runs)
        for layer in range(3)
    ]


def gaussian(seed: int):
    return spectra.gaussian(1024, 1024, 1, seed)


def steep(seed: int):
    return spectra.prescribed("log_uniform", 64, 1e4, 1, seed)


def checks(make) -> dict:
    return {check.name: check for check in momenta.checks(found(make), triples=60, seed=0)}


@pytest.fixture(scope="module")
def of_gaussian():
    return checks(gaussian)


@pytest.fixture(scope="module")
def of_steep():
    return checks(steep)


def test_on_gaussian_spectra_they_say_what_the_others_say(of_gaussian):
    """So that a difference between the two is one of spectra, not of rules."""
    verdicts = {name: check.verdict for name, check in of_gaussian.items()}
    assert verdicts["official_mse_momenta"] == verdicts["fitted_mse_momenta"] == "confirmed"
    assert verdicts["taylor_mse_momenta"] == "refuted"
    assert verdicts["official_not_optimal_momenta"] == "confirmed"
    assert verdicts["official_beats_taylor_momenta"] == "confirmed"
    assert verdicts["fewer_steps_momenta"] == "confirmed"
    assert verdicts["little_to_gain_momenta"] == "refuted"
    assert verdicts["stable_over_kinds_momenta"] == "confirmed"


def test_on_steep_spectra_the_figures_are_others(of_steep):
    check = of_steep["official_mse_momenta"]
    errors = [recursion.mse(values, [KELLER] * 5).mean for values in rows(steep)]
    assert check.verdict == "refuted" and check.low == pytest.approx(min(errors))
    assert check.high == pytest.approx(max(errors)) and "a q" in check.condition
    ratio = of_steep["official_beats_taylor_momenta"]
    others = [recursion.mse(values, [TAYLOR] * 5).mean for values in rows(steep)]
    assert ratio.high == pytest.approx(max(np.divide(errors, others)))


def rows(make):
    """By run, as the checks see them."""
    return momenta.kinds(found(make)).values()


def test_fits_are_measured_on_layers_they_have_not_seen(monkeypatch):
    """The middle one of each run and kind."""
    seen, unseen = [], []
    single, share = momenta.search.single, momenta.share_removed

    def fit(values, *arguments, **options):
        seen.append(values)
        return single(values, *arguments, **options)

    def measure(values, triples):
        unseen.append(values)
        return share(values, triples)

    monkeypatch.setattr(momenta.search, "single", fit)
    monkeypatch.setattr(momenta, "share_removed", measure)
    checks(steep)
    assert len(seen[0]) == 4 and all(len(values) == 2 for values in unseen)
    assert not any(np.array_equal(a, b) for a in seen[0] for b in unseen[0])


def test_an_empty_gain_is_none():
    values = momenta.rows(found(gaussian))
    removed = official.share_removed(values, [KELLER] * 5)
    assert removed.mean == 0
    assert momenta.official_not_optimal(removed, len(values)).verdict == "refuted"


def test_shorter_spectra_do_not_count_as_zeros():
    """ViT's matrices have fewer singular values than GPT-2's."""
    short = Spectrum("c", 1, "q", 0, (8, 8), spectra.gaussian(8, 8, 1, 0)[0])
    both = momenta.rows([short, *found(gaussian, runs=("a",))])
    alone = recursion.mse(short.values, [KELLER] * 5).mean
    assert recursion.mse(both[:1], [KELLER] * 5).mean == pytest.approx(alone)


def test_a_claim_of_gaussian_matrices_only_depends():
    """The official set's figure is that of Gaussian matrices, and no property of training."""
    results = Results(ROOT / "results")
    by_name = {claim.name: claim for claim in claims.load()}
    verdict = judging.judge(by_name["official_mse"], results)
    assert verdict.verdict == DEPENDS and "momenta of training" in verdict.condition


def test_they_have_a_record_of_their_own(tmp_path, monkeypatch):
    """checks=true sources=momentum: quick, and the checks on random matrices stay as they are."""
    monkeypatch.setattr(run, "TRIPLES", 60)
    asked = Settings(0, str(tmp_path), sources=[Source("momentum")], momentum=None)
    found = run.run(asked, lambda text: None)
    (file,) = (tmp_path / "ortho").glob("*.json")
    names = [one["name"] for one in json.loads(file.read_text())["checks"]]
    assert names == [check.name for check in found] and len(set(names)) == 20
    assert set(Results(tmp_path).checks()) == set(names)


def test_precision_and_directions_are_measured_on_a_matrix_of_each_kind():
    """The steeper a matrix, the more its small directions are rounding."""
    sources = {"flat": Source("condition", 10.0), "steep": Source("power_law", 2.0)}
    stacks = {name: matrices.formed(it, (64, 64), 1, seed=0) for name, it in sources.items()}
    found = {check.name: check for check in momenta.of_matrices(stacks)}
    assert len(found) == 6 and all("momenta of training" in one.condition for one in found.values())
    assert found["works_in_bf16_momenta"].verdict == "depends"
    assert found["angles_of_main_directions_momenta"].verdict == "confirmed"
    assert found["rounding_near_zero_momenta"].n == 1 and "1 of 2" in (
        found["rounding_near_zero_momenta"].condition
    )


def test_the_shipped_momenta_have_a_matrix_of_each_kind():
    stacks = momenta.sampled(str(run.SHIPPED))
    assert len(stacks) > 8 and all(stack.X_bnm.shape[0] == 1 for stack in stacks.values())
    assert {name.split()[0] for name in stacks} == {"gpt2_nano-300", "vit_nano-300"}

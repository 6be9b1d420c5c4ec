"""The sets say what their sources say."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from optimizers import coefficients
from optimizers.coefficients import SETS, best_quintic, per_step, polar_express
from tests.helpers.commands import ROOT

pytestmark = pytest.mark.cpu

# As printed in arXiv 2505.16932 for l = 1e-3, before its safety factor.
PUBLISHED = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
]


def iterate(triples, s: np.ndarray) -> np.ndarray:
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return s


def test_polar_express_is_what_its_paper_prints():
    ours = polar_express(8, safety=1.0)
    np.testing.assert_allclose(ours[:6], PUBLISHED, rtol=1e-9)
    np.testing.assert_allclose(ours[-1], coefficients.TAYLOR, rtol=1e-6)


def test_the_best_quintic_is_flat_and_no_neighbour_is_better():
    s = np.linspace(0.05, 1.0, 2001)
    best = best_quintic(0.05, 1.0)
    error = np.abs(iterate([best], s) - 1).max()
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = np.array(best) * (1 + 1e-3 * rng.standard_normal(3))
        assert np.abs(iterate([other], s) - 1).max() >= error


@pytest.mark.parametrize("name", [*SETS, "polar_express"])
def test_every_set_stays_bounded_and_lifts_small_values(name):
    s = np.linspace(0, 1, 10_001)
    end = iterate(per_step(name, 5), s)
    assert np.isfinite(end).all() and end.min() >= -1e-12 and end.max() < 1.6
    assert iterate(per_step(name, 5), np.array([1e-6]))[0] > 1e-6


@pytest.mark.parametrize("name", ["taylor", "cubic", "baseline", "polar_express"])
def test_the_sets_that_converge_do(name):
    end = iterate(per_step(name, 20), np.linspace(0.01, 1, 1000))
    np.testing.assert_allclose(end, 1, atol=1e-6)


def test_keller_does_not_converge():
    """Five steps map 1 to 0.696, as the design records; more steps do not help."""
    assert iterate(per_step("keller", 5), np.array([1.0]))[0] == pytest.approx(0.696, abs=5e-3)
    assert np.abs(iterate(per_step("keller", 20), np.linspace(0.01, 1, 1000)) - 1).max() > 0.1


def test_short_sets_repeat_their_last_triple():
    assert per_step("you5", 7)[4:] == [coefficients.YOU5[-1]] * 3
    assert per_step("keller", 3) == [coefficients.KELLER] * 3


def test_every_yaml_names_a_set_that_exists():
    for file in (ROOT / "conf" / "orthogonalizer").glob("*.yaml"):
        block = OmegaConf.load(file)
        if "coefficients" in block:
            assert len(per_step(block.coefficients, block.steps)) == block.steps


def test_triples_may_be_given_as_they_are():
    triples = [(4.0, -6.0, 2.5), (2.0, -1.5, 0.5)]
    assert per_step(triples, 3) == [triples[0], triples[1], triples[1]]
    from_yaml = OmegaConf.create([list(triple) for triple in triples])
    assert per_step(from_yaml, 1) == triples[:1]


@pytest.mark.parametrize(
    "wrong",
    [
        *([], [[2, -1.5]], [2, -1.5, 0.5], [[2, -1.5, float("nan")]], [["2", "-1.5", "0.5"]]),
        *(["abc"], 3, None, {"a": 2}),
    ],
)
def test_malformed_triples_are_refused_in_one_line(wrong):
    with pytest.raises(ValueError, match=r"^orthogonalizer.coefficients=.*list of triples") as info:
        per_step(wrong, 5)
    assert "\n" not in str(info.value)

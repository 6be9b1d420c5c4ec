"""Turns, the fit, the curve and where it falls to a level, against curves that are known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measuring import overhead, turns

UNITS = [256, 512, 1024]
ROUNDS = 15


def times(a: float, b: float, steps: dict[str, float], jitter: float = 0.0) -> overhead.Sampled:
    """Rounds of a forward+backward that is a line, each time off by up to `jitter` of itself."""
    generator = np.random.default_rng(1)

    def rounds(ms: float) -> list[float]:
        return list(ms * (1 + jitter * generator.uniform(-1, 1, ROUNDS)))

    return overhead.sample(
        UNITS, [rounds(a + b * u) for u in UNITS], {name: rounds(ms) for name, ms in steps.items()}
    )


def test_each_round_begins_one_further_and_all_turns_are_taken():
    order: list[str] = []
    names = "ABCD"
    kept = turns.take(
        {name: lambda name=name: order.append(name) for name in names}, 4, lambda text: None, None
    )
    rounds = ["".join(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert rounds == ["ABCD", "BCDA", "CDAB", "DABC", "ABCD"]
    assert {name: len(values) for name, values in kept.items()} == dict.fromkeys(names, 4)


def test_a_turn_that_raises_is_out_and_the_others_go_on():
    left = [3]

    def breaks():
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("broken")

    failures = {}
    kept = turns.take(
        {"good": lambda: 1, "bad": breaks}, 5, lambda text: None, failures.__setitem__
    )
    assert kept == {"good": [1] * 5} and str(failures["bad"]) == "broken"


@given(
    a=st.floats(-50, 500), b=st.floats(1e-3, 10), units=st.sets(st.integers(1, 10**6), min_size=3)
)
def test_the_fit_finds_a_line(a, b, units):
    units_k = np.array(sorted(units), dtype=float)
    found_a, found_b = overhead.line(units_k, (a + b * units_k)[None], np.ones((1, len(units))))
    scale = abs(a) + b * units_k.max()
    assert found_b[0] * units_k.max() == pytest.approx(b * units_k.max(), abs=1e-6 * scale)
    assert found_a[0] == pytest.approx(a, abs=1e-6 * scale)


def test_the_fit_tells_its_residual_and_its_interval_holds_what_is_not_a_line():
    straight = overhead.fit(times(20.0, 0.1, {}))
    assert straight["largest_relative_residual"] < 1e-9
    assert straight["b_ms_per_unit"]["high"] - straight["b_ms_per_unit"]["low"] < 1e-9
    bent = overhead.fit(overhead.sample(UNITS, [[50.0] * 5, [100.0] * 5, [300.0] * 5], {}))
    assert bent["largest_relative_residual"] > 0.05
    low, high = (bent["b_ms_per_unit"][key] for key in ("low", "high"))
    assert low == pytest.approx(50 / 256) and high == pytest.approx(200 / 512)


def test_the_curve_is_the_formula_measured_and_beyond():
    sampled = times(20.0, 0.1, {"adamw": 4.0, "muon": 40.0})
    points = overhead.curve(sampled, "muon", "adamw", [2048, 4096])
    assert [p["measured"] for p in points] == [True, True, True, False, False]
    for point in points:
        fb = 20 + 0.1 * point["units"]
        assert point["value"] == pytest.approx((fb + 40) / (fb + 4) - 1)


def test_units_at_a_level_are_where_the_curve_has_it():
    sampled = times(20.0, 0.1, {"adamw": 4.0, "muon": 40.0, "near": 10.0, "same": 4.0})
    for level, at in overhead.units_at(sampled, "muon", "adamw").items():
        expected = ((40 - 4) / float(level) - 4 - 20) / 0.1
        assert at["units"] == pytest.approx(expected) and not at["measured"]
    near = overhead.units_at(sampled, "near", "adamw")
    assert (
        near["0.05"]["units"] == pytest.approx((6 / 0.05 - 24) / 0.1) and near["0.05"]["measured"]
    )
    assert not near["0.01"]["measured"]
    same = overhead.units_at(sampled, "same", "adamw")
    assert {at["units"] for at in same.values()} == {0.0}


def test_units_at_is_never_where_forward_and_backward_do_not_grow():
    sampled = times(100.0, -1e-3, {"adamw": 4.0, "muon": 40.0, "near": 4.5})
    never = overhead.units_at(sampled, "muon", "adamw")
    assert {at["units"] for at in never.values()} == {np.inf}
    near = overhead.units_at(sampled, "near", "adamw")["0.05"]
    assert near["units"] == 0.0 and near["measured"]
    assert len(overhead.farther(sampled, [never, {"0.01": {"units": 0.0}}])) == 1


def test_the_interval_holds_the_true_value_and_grows_with_the_spread():
    true = (20 / 0.05 - 24) / 0.1
    widths = []
    for jitter in (0.01, 0.05):
        sampled = times(20.0, 0.1, {"adamw": 4.0, "muon": 24.0}, jitter)
        at = overhead.units_at(sampled, "muon", "adamw")["0.05"]
        assert at["low"] < true < at["high"]
        widths.append(at["high"] - at["low"])
    assert widths[0] < widths[1]


def test_points_beyond_double_until_all_are_below_one_percent():
    sampled = times(20.0, 0.1, {"adamw": 4.0, "muon": 40.0})
    at = overhead.units_at(sampled, "muon", "adamw")
    grid = overhead.farther(sampled, [at])
    assert grid[0] == 2048 and all(b == 2 * a for a, b in pairwise(grid))
    values = [p["value"] for p in overhead.curve(sampled, "muon", "adamw", grid)]
    assert values[-1] <= 0.01 < values[-2]


def test_a_difference_within_that_of_the_pair_is_none():
    sampled = times(
        20.0, 0.1, {"adamw": 4.0, "again": 4.02, "adam": 4.01, "muon": 6.0}, jitter=0.02
    )
    noise = overhead.noise(sampled, "adamw", "again")
    assert noise["ms"] >= abs(noise["value"]) and noise["low"] <= noise["value"] <= noise["high"]
    assert overhead.difference(sampled, "adam", "adamw", noise["ms"])["within_noise"]
    muon = overhead.difference(sampled, "muon", "adamw", noise["ms"])
    assert not muon["within_noise"] and muon["low"] > 1.5
    assert overhead.difference(sampled, "muon", "adamw", 3.0)["within_noise"]

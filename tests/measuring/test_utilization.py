"""Utilization against sums done by hand, and no peak where measuring it would cost too much."""

import pytest
import torch

from bench.measuring import flops, utilization

COUNTED = flops.Count(1000, [], torch.float32)


@pytest.fixture
def rates(monkeypatch):
    """Squares that take no time, of 4e4 and 5e4 FLOP/s; the list tells which were measured."""
    asked = []

    def rate(stack, n, k, m, dtype, device):
        asked.append((n, dtype))
        return 1e4 * n

    monkeypatch.setattr(flops, "rate", rate)
    monkeypatch.setattr(flops, "SECONDS", 0.1)
    monkeypatch.setattr(utilization, "SQUARES", {"cpu": (4, 5)})
    return asked


def test_utilization_by_hand(rates):
    found = utilization.of(COUNTED, 8, 2.0, 1000.0, "cpu")
    assert found == {
        "per_step": 8000,
        "dtype": "float32",
        "per_second": 4000.0,
        "peak": {"flops_per_second": 5e4, "product": "1 of 5x5 @ 5x5"},
        "utilization": 0.08,
    }
    assert rates == [(4, torch.float32), (5, torch.float32)]


def test_processes_share_the_work_and_each_has_a_peak(rates):
    assert utilization.of(COUNTED, 8, 2.0, 1000.0, "cpu", 4)["utilization"] == 0.02


def test_a_run_too_short_for_the_peak_is_not_held_up(rates):
    quick = (COUNTED, 8, 2e-6)  # 4e9 FLOP/s: each square for 0.1 s
    found = utilization.of(*quick, 19.0, "cpu")
    assert found["per_second"] == pytest.approx(4e9)
    assert found["peak"] is found["utilization"] is None and not rates
    assert utilization.of(*quick, 21.0, "cpu")["peak"] is not None
    # At 4 FLOP/s four products of 4 and of 5 rows take 128 and 250 s.
    assert utilization.seconds_of_peak(4.0, "cpu") == 128 + 250
    assert utilization.of(COUNTED, 8, 2000.0, 37_000.0, "cpu")["peak"] is None


@pytest.mark.parametrize("counted", [None, flops.Count(None, ["mv"], torch.float32),
                                     flops.Count(0, [], None)])  # fmt: skip
def test_what_was_not_counted_is_nothing(counted, rates):
    assert utilization.of(counted, 8, 2.0, 1000.0, "cpu") is None and not rates

"""The checks of outputs: numbers against matrices that are formed, and laws."""

import numpy as np
import pytest
import torch

from bench.laboratory import matrices
from bench.laboratory.settings import Source
from bench.laboratory.statements import output
from optimizers.coefficients import KELLER, TAYLOR
from optimizers.orthogonalize import orthogonalize

STEEP = output.STEEP


@pytest.fixture(scope="module")
def stacks():
    sources = (Source("gaussian"), *STEEP)
    return {str(source): matrices.formed(source, (24, 24), 2, seed=0) for source in sources}


@pytest.fixture(scope="module")
def cases(stacks):
    return {name: stack.s_bk for name, stack in stacks.items()}


def main_share(before, after):
    """By singular vectors, one after the other, until 99 % of the squared norm is reached."""
    inside = []
    for X, Y in zip(before, after, strict=True):
        U, S, Vh = torch.linalg.svd(X)
        reached = 0.0
        for u, s, v in zip(U.T, S, Vh, strict=True):
            if reached >= 0.99:
                break
            reached += float(s**2)
            inside.append(0.5 < float(u @ Y @ v) < 1.5)
    return np.mean(inside)


def test_shares_and_errors_are_those_of_matrices(stacks, cases):
    by_matrix = {"range": [], "main": [], "error": []}
    for stack in stacks.values():
        X = orthogonalize(stack.X_bnm, [KELLER] * 5)
        s = torch.linalg.svdvals(X)
        by_matrix["range"].append(float(((s > 0.5) & (s < 1.5)).double().mean()))
        by_matrix["main"].append(main_share(stack.X_bnm, X))
        errors = (X @ X.mT - torch.eye(24)).norm(dim=(1, 2)) / 24**0.5
        by_matrix["error"].append(float(errors.mean()))
    for check, kind in (
        (output.sprime_range(cases), "range"),
        (output.main_directions(cases), "main"),
        (output.nearly_orthogonal(cases), "error"),
    ):
        expected = (np.median(by_matrix[kind]), min(by_matrix[kind]), max(by_matrix[kind]))
        assert (check.value, check.low, check.high) == pytest.approx(expected, abs=1e-9)


def test_verdicts_follow_the_cases(cases):
    easy = {name: np.full((1, 25), 0.2) for name in cases}
    assert output.sprime_range(easy).verdict == "confirmed"
    hard = easy | {"hard": cases["condition:1e+06"]}
    assert output.sprime_range(hard).verdict == "depends"
    assert output.main_directions(hard).verdict == "confirmed"
    assert output.nearly_orthogonal(easy).verdict == "confirmed"
    tiny = {name: np.geomspace(1, 1e-9, 25)[None] for name in cases}
    assert output.nearly_orthogonal(tiny).verdict == "refuted"
    assert output.sprime_range(tiny).verdict == "refuted"
    huge = easy | {"many": np.full((1, 2**21), 2**-10.5)}  # main ones, and yet too small
    assert output.main_directions(huge).verdict == "depends"


def test_bf16_is_stable_where_nothing_is_too_small(stacks, monkeypatch):
    check = output.works_in_bf16({"gaussian": stacks["gaussian"]})
    assert check.verdict == "confirmed" and check.n == 2 and 1 < check.value < 1.26
    assert output.works_in_bf16(stacks).verdict == "depends"
    monkeypatch.setattr(output, "KELLER", (3.9425, -7.0153, 3.448))  # escapes, in the end
    monkeypatch.setattr(output, "LONGEST", 60)
    assert output.works_in_bf16({"gaussian": stacks["gaussian"]}).verdict == "refuted"


def test_deviation_from_fp64_is_of_the_same_steps(stacks):
    X = stacks["gaussian"].X_bnm
    full = orthogonalize(X, [KELLER] * 3)
    low = orthogonalize(X, [KELLER] * 3, dtype=torch.bfloat16).double()
    expected = float(((low - full).norm(dim=(1, 2)) / full.norm(dim=(1, 2))).max())
    assert output.bf16_deviation(stacks["gaussian"], 3) == pytest.approx(expected, rel=0.05)


def test_a_large_slope_lifts_rounding_too(monkeypatch):
    stack = matrices.formed(Source("low_rank", 0.25), (64, 64), 3, seed=0)
    assert output.beside_the_matrix(stack, stack.X_bnm).max() < 1e-10
    outside = torch.eye(64, dtype=torch.float64) - stack.msign_bnm @ stack.msign_bnm.mT
    assert output.beside_the_matrix(stack, outside).min() == pytest.approx(1)
    check = output.small_values_near_zero(stack)
    assert check.verdict == "refuted" and check.low > 1
    monkeypatch.setattr(output, "KELLER", TAYLOR)
    monkeypatch.setattr(output, "TAYLOR", KELLER)
    assert output.small_values_near_zero(stack).verdict == "confirmed"


def test_hardware_is_left_open():
    assert output.hardware().verdict == "open"

"""The checks of outputs: numbers against matrices that are formed, and laws."""

import numpy as np
import pytest
import torch

from bench.laboratory import matrices
from bench.laboratory.settings import Source
from bench.laboratory.statements import output
from optimizers.coefficients import KELLER
from optimizers.orthogonalize import orthogonalize

STEEP = output.STEEP


@pytest.fixture(scope="module")
def stacks():
    sources = (Source("gaussian"), *STEEP)
    return {str(source): matrices.formed(source, (24, 24), 2, seed=0) for source in sources}


@pytest.fixture(scope="module")
def cases(stacks):
    return {name: stack.s_bk for name, stack in stacks.items()}


def test_shares_and_errors_are_those_of_matrices(stacks, cases):
    by_matrix = {"range": [], "error": []}
    for stack in stacks.values():
        X = orthogonalize(stack.X_bnm, [KELLER] * 5)
        s = torch.linalg.svdvals(X)
        by_matrix["range"].append(float(((s > 0.5) & (s < 1.5)).double().mean()))
        errors = (X @ X.mT - torch.eye(24)).norm(dim=(1, 2)) / 24**0.5
        by_matrix["error"].append(float(errors.mean()))
    for check, kind in (
        (output.sprime_range(cases, output.by_steepness), "range"),
        (output.nearly_orthogonal(cases, output.by_steepness), "error"),
    ):
        expected = (np.median(by_matrix[kind]), min(by_matrix[kind]), max(by_matrix[kind]))
        assert (check.value, check.low, check.high) == pytest.approx(expected, abs=1e-9)


def test_verdicts_follow_the_cases(cases):
    easy = {name: np.full((1, 25), 0.2) for name in cases}
    assert output.sprime_range(easy, str).verdict == "confirmed"
    hard = easy | {"hard": cases["condition:1e+06"]}
    assert output.sprime_range(hard, str).verdict == "depends"
    assert output.nearly_orthogonal(easy, str).verdict == "confirmed"
    tiny = {name: np.geomspace(1, 1e-9, 25)[None] for name in cases}
    assert output.nearly_orthogonal(tiny, str).verdict == "refuted"
    assert output.sprime_range(tiny, str).verdict == "refuted"


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


def test_rounding_near_zero_is_what_is_off_the_small_directions():
    stack = matrices.formed(Source("condition", 1e6), (32, 32), 2, seed=0)
    U, S, Vh = torch.linalg.svd(stack.X_bnm)
    assert output.noise_near_zero(stack, stack.msign_bnm).max() < 1e-6
    first = int((S[0] / S[0].norm() >= output.SMALL).sum())
    assert 0 < first < 31
    crossed = U[..., [first]] @ Vh[..., [first + 1], :]  # one small direction where another was
    assert output.noise_near_zero(stack, crossed).min() == pytest.approx(1)
    large = U[..., [0]] @ Vh[..., [1], :]  # not of small ones
    both = stack.msign_bnm + large
    assert output.noise_near_zero(stack, both).max() < 1e-6


def test_either_set_may_have_less_rounding_near_zero(monkeypatch):
    stack = matrices.formed(Source("condition", 1e6), (64, 64), 3, seed=0)
    shares = iter([0.1, 0.1, 0.1, 0.2, 0.2, 0.2])  # official, theoretical by dtype
    spread = np.array([1.0, 1.01, 0.99])
    monkeypatch.setattr(output, "noise_near_zero", lambda *_: next(shares) * spread)
    assert output.small_values_near_zero([stack], "so").verdict == "confirmed"
    shares = iter([0.3, 0.1, 0.1, 0.2, 0.2, 0.2])
    check = output.small_values_near_zero([stack], "so")
    assert check.verdict == "refuted" and check.value == pytest.approx(1.5)


def test_hardware_is_left_open():
    assert output.hardware().verdict == "open"

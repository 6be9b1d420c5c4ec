"""The checks of directions and scale: numbers against loops over singular vectors, and laws."""

import math

import pytest
import torch

from bench.laboratory.statements import directions
from bench.laboratory.statements.directions import cosine, main_angle, off_directions
from tests.helpers.laboratory import case


@pytest.fixture(scope="module")
def found():
    return [case("gaussian"), case("power_law", 1.0), case("low_rank", 0.25)]


def test_what_is_off_the_directions_is_what_other_pairs_of_vectors_make(found):
    square = case("gaussian", shape=(8, 8))
    result = torch.randn(2, 8, 8, dtype=torch.float64)
    shares = []
    for U, V, R in zip(square.U_bnk, square.V_bmk, result, strict=True):
        pairs = [(U[:, i] @ R @ V[:, j]) ** 2 for i in range(8) for j in range(8) if i != j]
        shares.append(math.sqrt(sum(pairs)) / R.norm())
    assert off_directions(square, result) == pytest.approx(float(max(shares)))
    for one in found:  # an odd polynomial keeps them
        X = one.stack.X_bnm
        assert off_directions(one, 2 * X - X @ X.mT @ X) < 1e-12


def turned(found):
    return [one._replace(U_bnk=one.U_bnk.flip(-1)) for one in found]


def test_msign_keeps_directions_and_scale_but_for_rounding(found):
    assert directions.exact_keeps_directions(found).verdict == "confirmed"
    assert directions.exact_keeps_directions(turned(found)).verdict == "refuted"
    assert directions.exact_normalizes_scale(found).verdict == "confirmed"
    half = [
        one._replace(stack=one.stack._replace(msign_bnm=one.stack.msign_bnm / 2)) for one in found
    ]
    assert directions.exact_normalizes_scale(half).verdict == "refuted"


def test_five_steps_in_bf16_keep_directions_where_none_is_small(found):
    check = directions.steps_keep_directions(found[:2])
    assert check.verdict == "confirmed" and check.low > 1e-3
    assert directions.steps_keep_directions(turned(found)).verdict == "refuted"


def test_scale_is_normalized_where_no_value_is_too_small(found):
    check = directions.steps_normalize_scale(found)
    assert check.verdict == "confirmed" and 0.05 < check.low < check.high < 0.3
    steep = case("condition", 1e8)
    assert directions.steps_normalize_scale([*found, steep]).verdict == "depends"
    assert directions.steps_normalize_scale([steep]).verdict == "refuted"
    assert len(directions.singular_values(found[2], found[2].stack.X_bnm)) == 2 * 6  # of rank 6


def test_the_angle_of_a_main_direction_is_that_of_its_image(found):
    one = case("power_law", 2.0, shape=(4, 4))
    U, V = one.U_bnk, one.V_bmk
    angle = math.radians(20)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    assert main_angle(one, U @ V.mT) == pytest.approx(0, abs=1e-4)
    assert main_angle(one, U @ turn @ V.mT) == pytest.approx(20)
    assert main_angle(one, -U @ V.mT) == pytest.approx(180)
    last = torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64))
    assert main_angle(one, U @ last @ V.mT) == pytest.approx(0, abs=1e-4)  # carries a hundredth


def test_main_directions_are_kept_and_turned_ones_are_not(found):
    assert directions.main_directions(found).verdict == "confirmed"
    assert directions.main_directions(turned(found)).verdict == "refuted"
    assert directions.main_directions([found[0], *turned(found[1:])]).verdict == "depends"
    Q = found[0].stack.msign_bnm
    assert cosine(2 * Q, Q) == pytest.approx(1)

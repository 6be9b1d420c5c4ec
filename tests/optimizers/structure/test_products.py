"""Calls of torch that are matrix products are taken apart into factors that give the same."""

import pytest
import torch
import torch.nn.functional as F

from optimizers.structure.products import einsum_as_product, einsum_operands, factors

pytestmark = pytest.mark.cpu

A, B, X = torch.randn(2, 3, 4), torch.randn(2, 4, 5), torch.randn(3, 4)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (F.linear, (X, torch.randn(5, 4)), {}),
        (F.linear, (A, torch.randn(5, 4)), {"bias": torch.zeros(5)}),
        (torch.matmul, (A, B), {}),
        (torch.Tensor.matmul, (X, B[0]), {}),
        (torch.mm, (X, B[0]), {}),
        (torch.bmm, (A, B), {}),
        (torch.addmm, (torch.zeros(5), X, B[0]), {}),
        (torch.baddbmm, (torch.zeros(2, 3, 5),), {"batch1": A, "batch2": B, "beta": 1.0}),
    ],
)
def test_the_factors_of_a_call_give_its_result(function, args, kwargs):
    left, right = factors(function, args, kwargs)
    assert torch.allclose(left @ right, function(*args, **kwargs), atol=1e-6)


def test_a_batch_without_a_name_is_a_batch():
    x, w = torch.randn(2, 3, 4), torch.randn(4, 5)
    a, b, back = einsum_as_product("...d,de->...e", x, w)
    assert torch.allclose(back(a @ b), x @ w, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "kwargs"),
    [
        (F.linear, {"bias": torch.zeros(5), "weight": torch.randn(5, 4), "input": A}),
        (torch.matmul, {"other": B, "input": A}),
        (torch.addmm, {"mat2": B[0], "mat1": X, "input": torch.zeros(5)}),
        (torch.bmm, {"mat2": B, "input": A}),
    ],
)
def test_factors_given_by_keyword_in_any_order_are_bound_by_name(function, kwargs):
    left, right = factors(function, (), kwargs)
    assert torch.allclose(left @ right, function(**kwargs), atol=1e-6)


@pytest.mark.parametrize("form", [(("ij,jk->ik", X, B[0]), {}), (("ij,jk->ik", [X, B[0]]), {})])
def test_an_einsum_takes_its_two_tensors_apart_or_in_a_list(form):
    equation, left, right = einsum_operands(*form)
    assert equation == "ij,jk->ik" and left is X and torch.equal(right, B[0])
    assert einsum_operands(("ij,jk,kl->il", X, B[0], B[0].T), {}) is None


def test_what_is_no_matrix_product_has_no_factors():
    assert factors(torch.add, (X, X), {}) is None
    assert factors(torch.matmul, (X, torch.randn(4)), {}) is None
    assert factors(F.linear, (X, torch.randn(4)), {}) is None


SIZES = dict(zip("bhqkdseg", (2, 3, 4, 5, 6, 7, 8, 2), strict=True))


@pytest.mark.parametrize(
    "equation",
    [
        "bhqd,bhkd->bhqk",
        "bqhd,bkhd->bhqk",
        "bhqk,bkhd->bqhd",
        "bsd, ed -> bse",
        "sd,de->se",
        "bsd,de->bes",
        "qd,bdk->bqk",
        "bqd,bdk->kqb",
        "bhgqd,bhkd->bhgqk",
        "bhgqk,bhkd->bqhgd",
        "qd,bdk->bqk",
        "bsd,dhe->bshe",
        "bshe,dhe->bsd",
        "bshe,hed->bsd",
        "bshe,hde->bsd",
        "bsd,hde->bshe",
        "bsd,hed->bshe",
    ],
)
def test_an_einsum_is_taken_apart(equation):
    inputs, _, _ = equation.replace(" ", "").partition("->")
    left, right = (torch.randn([SIZES[i] for i in names]) for names in inputs.split(","))
    a, b, back = einsum_as_product(equation, left, right)
    assert a.shape[-1] == b.shape[-2]
    assert torch.allclose(back(a @ b), torch.einsum(equation, left, right), atol=1e-5)


@pytest.mark.parametrize("equation", ["bss,sd->bd", "sd,...de->...se", "ij,kl->ijkl", "ij,jk"])
def test_an_einsum_of_more_than_one_batched_product_is_left_alone(equation):
    assert einsum_as_product(equation, A, B) is None

"""Products of a lower precision, emulated: against every number that the format has."""

import pytest
import torch

from optimizers.coefficients import per_step
from optimizers.orthogonalize import rounding
from optimizers.orthogonalize.iteration import Orthogonalizer

KELLER = per_step("keller", 5)


def gaussian(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def normed(X):
    return X / X.norm(dim=(-2, -1), keepdim=True)


def test_fp8_is_the_nearest_of_all_its_numbers_with_a_scale_for_each_matrix():
    bits = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    numbers = bits[bits.isfinite()]
    X = gaussian(3, 8, 12) * torch.tensor([1e-6, 1.0, 1e6]).view(3, 1, 1)
    scale = X.abs().amax((-2, -1), keepdim=True) / 448
    distance = (X / scale).unsqueeze(-1).sub(numbers).abs().amin(-1)
    found = rounding.rounded(X, "fp8")
    assert ((found - X).abs() - distance * scale <= 1e-6 * X.abs()).all()
    assert (found != X).float().mean() > 0.9


@pytest.mark.parametrize("shape", [(2, 24, 40), (2, 40, 24), (2, 24, 24)])
def test_the_error_of_the_iteration_is_the_formats(shape):
    X = normed(gaussian(*shape))
    exact = Orthogonalizer(method="newton_schulz", dtype="fp32")(X)
    errors = {}
    for to in rounding.FORMATS:
        found = Orthogonalizer(method="newton_schulz", dtype="fp32", rounding=to)(X)
        errors[to] = ((found - exact).norm() / exact.norm()).item()
    assert 1e-5 < errors["fp16"] < 1e-2 < errors["fp8"]


def test_a_tall_matrix_is_a_wide_one_on_its_side():
    X = normed(gaussian(2, 40, 24))
    tall = rounding.newton_schulz(X, KELLER, "fp8")
    assert torch.equal(tall, rounding.newton_schulz(X.mT.contiguous(), KELLER, "fp8").mT)


@pytest.mark.parametrize("to", rounding.FORMATS)
def test_zero_stays_zero_and_nan_stays_in_its_own_matrix(to):
    X = gaussian(3, 8, 12)
    X[0] = 0
    X[1, 2, 3] = torch.nan
    kept = X.clone()
    found = Orthogonalizer(method="newton_schulz", dtype="fp32", rounding=to)(X)
    assert (found[0] == 0).all() and found[1].isnan().any() and found[2].isfinite().all()
    assert torch.equal(X, kept) or torch.equal(X.nan_to_num(), kept.nan_to_num())


@pytest.mark.parametrize(
    "settings",
    [
        {"rounding": "fp4", "method": "newton_schulz", "dtype": "fp32"},
        {"rounding": "fp8", "method": "auto", "dtype": "fp32"},
        {"rounding": "fp8", "method": "newton_schulz", "dtype": "bf16"},
        {"rounding": "fp8", "method": "newton_schulz", "dtype": "fp32", "norm": "schatten4"},
    ],
)
def test_what_cannot_be_rounded_is_refused(settings):
    with pytest.raises(ValueError, match=r"orthogonalizer.rounding=.*fp16 or fp8.*newton_schulz"):
        Orthogonalizer(**settings)

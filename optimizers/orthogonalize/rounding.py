"""The iteration with products of a lower precision, emulated on any device.

Hardware rounds the operands of a product to its format and sums in fp32. This code does the same,
one operand at a time, and is slow: it shows what a precision does to training, not its speed.
"""

import torch
from torch import Tensor

from optimizers.coefficients import Triple

FORMATS = {"fp16": torch.float16, "fp8": torch.float8_e4m3fn}


def rounded(X_bnm: Tensor, to: str) -> Tensor:
    """X with each number rounded to a format.

    fp8 (E4M3, whose largest number is 448) has one scale per matrix, as is usual: Micikevicius et
    al. 2022, FP8 formats for deep learning, arXiv 2209.05433.
    """
    if to != "fp8":
        return X_bnm.to(FORMATS[to]).to(X_bnm.dtype)
    scale = X_bnm.abs().amax((-2, -1), keepdim=True) / torch.finfo(FORMATS[to]).max
    scale = scale.where(scale != 0, 1.0)
    return (X_bnm / scale).to(FORMATS[to]).to(X_bnm.dtype) * scale


def newton_schulz(X_bnm: Tensor, triples: list[Triple], to: str) -> Tensor:
    """X <- a X + (b G + c G^2) X with G = X X^T, the operands of all products rounded."""
    tall = X_bnm.shape[-2] > X_bnm.shape[-1]
    X = X_bnm.mT if tall else X_bnm
    for a, b, c in triples:
        R = rounded(X, to)
        G = R @ R.mT
        S = rounded(G, to)
        X = a * X + rounded(b * G + c * (S @ S), to) @ R
    return X.mT if tall else X

"""Kernels in Triton's interpreter: TRITON_INTERPRET=1 python -m tests.helpers.interpreted"""

from itertools import product

import torch
from triton.runtime import interpreter

from optimizers import moves
from optimizers.orthogonalize import gpu
from optimizers.stacks import plan
from optimizers.views import View, whole
from tests.helpers.matrices import random


def indices_of_one_element():
    """A loop's bound, an array of one element, is no index to newer versions of numpy."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


SHAPES = (64, 64, 4, 4), (32, 16, 4, 1)  # of tiles


def tensors(dtype=torch.float32, seed=0):
    """A matrix cut in heads, a transposed one cut in columns, a vector, experts, joined parts."""
    shapes = (24, 10), (10, 24), (7,), (3, 5, 9), (8, 6), (4, 6)
    params = [random(*shape, seed=seed + i).to(dtype) for i, shape in enumerate(shapes)]
    cut = [[[0, 8 * i, 8 * i + 8]] for i in range(3)]
    views = [
        View(members=[0], layout="matrix", axis=0, blocks=cut),
        View(
            members=[1],
            layout="transposed",
            axis=0,
            blocks=[[[1, 8 * i, 8 * i + 8]] for i in range(3)],
        ),
        whole(2, params[2], "vector"),
        whole(3, params[3], "batch"),
        View(members=[4, 5], layout="matrix", axis=0, blocks=[[[4, 0, 8], [5, 0, 4]]]),
    ]
    return params, views


def step(launched, dtype, group, device_type):
    """Parameters, momenta and stacks after a gather and a scatter."""
    moves._one_launch = lambda *anything: launched
    params, views = tensors(dtype)
    stacks = plan(params, views, "match_rms_adamw", device_type)
    grads, buffers = (dict(enumerate(tensors(dtype, seed)[0])) for seed in (10, 20))
    Xs = [torch.full(stack.shape, torch.nan) for stack in stacks]
    moves.gather(Xs, stacks, grads, buffers, group, {})
    moves.scatter(Xs, stacks, dict(enumerate(params)), group, {})
    return [*params, *buffers.values(), *Xs]


def strips_are_gathered_and_applied(form, nesterov, cautious, dtype, device_type):
    group = dict(momentum=0.9, nesterov=nesterov, momentum_form=form)
    group |= dict(lr=0.1, weight_decay=0.2, cautious=cautious)
    tolerance = {torch.float32: 1e-6, torch.float16: 4e-3}[dtype]
    pairs = zip(*(step(way, dtype, group, device_type) for way in (True, False)), strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def a_classical_momentum_of_fp16_stays_finite():
    moves._one_launch = lambda *anything: True
    params = [torch.zeros(4, 4, dtype=torch.float16)]
    stacks = plan(params, [whole(0, params[0], "matrix")], "none")
    grads = {0: torch.full((4, 4), 5000.0, dtype=torch.float16)}
    buffers = {0: torch.full((4, 4), 60000.0, dtype=torch.float16)}
    Xs, group = [torch.empty(stacks[0].shape)], dict(momentum=0.95, nesterov=True)
    for _ in range(3):
        moves.gather(Xs, stacks, grads, buffers, group | dict(momentum_form="classical"), {})
    assert Xs[0].isfinite().all() and buffers[0].max() == torch.finfo(torch.float16).max


def symmetric_products(dtype, n, k, tall, shape):
    """Of n that tiles do not divide, too; bf16 products are wrong in the interpreter."""
    X = random(2, k, n).to(dtype).mT if tall else random(2, n, k).to(dtype)
    added = random(2, n, n, seed=1).to(dtype)
    added, out = added + added.mT, torch.full((2, n, n), torch.nan, dtype=dtype)
    exact = X.double() @ X.double().mT
    for other, alpha, beta, gamma in ((added, 0.5, -2.0, 3.0), (None, 1.0, 1.0, 0.0)):
        want = alpha * exact + (0.0 if other is None else beta * other.double())
        want.diagonal(dim1=-2, dim2=-1).add_(gamma)
        gpu.symmetric(X, X.mT, other, alpha, beta, gamma, out, shape)
        sizes = abs(alpha) * X.double().abs() @ X.double().abs().mT
        sizes = sizes if other is None else sizes + abs(beta) * other.double().abs()
        unit = torch.finfo(dtype).eps / 2 * want.norm() + 2**-24 * k**0.5 * sizes.norm()
        assert (out.double() - want).norm() <= unit


if __name__ == "__main__":
    indices_of_one_element()
    forms, flags, dtypes = ("ema", "classical"), (True, False), (torch.float32, torch.float16)
    for case in product(forms, flags, flags, dtypes, ("cpu", "cuda")):
        strips_are_gathered_and_applied(*case)
    a_classical_momentum_of_fp16_stays_finite()
    sizes = (100, 70), (64, 64), (130, 33)
    for dtype, (n, k), tall in product(dtypes, sizes, flags):
        for shape in SHAPES:
            symmetric_products(dtype, n, k, tall, shape)
    print("as without kernels")

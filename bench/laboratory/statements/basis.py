"""Statements on bases: does an update depend on the axes in which a matrix is written?

They are in Notes A (docs/claims.md): element-wise optimizers flatten a matrix and ignore what a
change of basis preserves; Muon respects it. A basis is a pair of rotations: P for the outputs, Q
for the inputs; they turn the weights W into P W Q and their gradient G into P G Q.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import ortho_group
from torch import Tensor
from torch.optim import Optimizer

from bench.laboratory.statements import updates
from bench.laboratory.statements.check import (
    CONFIRMED,
    DEPENDS,
    NOTES_A,
    REFUTED,
    Array,
    Check,
    verdict,
)
from bench.laboratory.statements.updates import SHAPE, STEPS, Make, deviation, trained

BASES = 20
ROUNDING = 1e-10  # smaller values in fp64 are rounding
# torch's, with their own defaults: an entry's step depends only on that entry's gradients.
ELEMENTWISE: dict[str, Make] = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    **{
        name: functools.partial(getattr(torch.optim, name), lr=0.1)
        for name in ("Adagrad", "RMSprop", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop")
    },
    "Adam": lambda params: torch.optim.Adam(params, lr=0.1),
    "AdamW": updates.adamw,
}


def checks(seed: int) -> Iterator[Check]:
    yield basis_equivariance(seed)
    yield elementwise_basis(seed)
    yield rotated_problem(least_squares(BASES, seed))
    yield trace_invariance(seed)


def rotations(size: int, count: int, seed: int) -> Tensor:
    """Orthogonal matrices (count, size, size), uniform (Haar)."""
    return torch.from_numpy(ortho_group.rvs(size, count, random_state=seed)).reshape(-1, size, size)


# one update ------------------------------------------------------------------------------------


def in_bases(make: Make, seed: int) -> list[float]:
    """Relative distance of the update of P G Q from P (the update of G) Q, by basis."""
    gradients = updates.gaussian_gradients(seed)
    plain = trained(make, gradients)
    bases = zip(*(rotations(n, BASES, seed + i) for i, n in enumerate(SHAPE)), strict=True)
    return [deviation(trained(make, P @ gradients @ Q), P @ plain @ Q) for P, Q in bases]


def basis_equivariance(seed: int) -> Check:
    of_adamw, of_muon = in_bases(updates.adamw, seed), in_bases(updates.muon, seed)

    def worst(dtype: str) -> float:
        return max(in_bases(lambda params: updates.muon(params, dtype=dtype), seed))

    return Check(
        name="basis_equivariance",
        statement="AdamW's update depends on the basis a matrix is written in, Muon's does not",
        value=float(np.median(of_adamw)),
        low=min(of_adamw),
        high=max(of_adamw),
        n=BASES,
        unit="AdamW's relative deviation between bases: median and range over bases",
        verdict=verdict(max(of_muon) < ROUNDING and min(of_adamw) > 0.1, max(of_adamw) < ROUNDING),
        condition=f"{STEPS} steps on Gaussian gradients, {_size()}; Muon's largest deviation is "
        f"{max(of_muon):.0e} in fp64, {worst('fp32'):.0e} in fp32, {worst('bf16'):.0e} in bf16; "
        "confirmed if Muon's is rounding in fp64 and AdamW's above 0.1 in every basis",
        source=NOTES_A,
    )


def elementwise_basis(seed: int) -> Check:
    """Not only for Adam: for all of torch's element-wise optimizers."""
    found = {name: float(np.median(in_bases(make, seed))) for name, make in ELEMENTWISE.items()}
    alike = [name for name, value in found.items() if value < ROUNDING]
    figures = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    return Check(
        name="elementwise_basis",
        statement="element-wise optimizers disregard what a change of basis leaves as it is",
        value=len(found) - len(alike),
        low=min(found.values()),
        high=max(found.values()),
        n=len(found),
        unit="optimizers whose update depends on the basis; range: of the relative deviation",
        verdict=verdict(not alike, len(alike) == len(found)),
        condition=f"{STEPS} steps on Gaussian gradients, {_size()}, {BASES} bases; {figures}; "
        f"independent of it: {', '.join(alike) or 'none'}; confirmed if none is, refuted if all",
        source=NOTES_A,
    )


def trace_invariance(seed: int) -> Check:
    """The trace under P A P^-1, and whether any update treats the diagonal differently.

    Permutations of rows and columns move every entry onto the diagonal and off it: an update that
    commutes with them cannot treat the diagonal differently.
    """
    side = SHAPE[0]
    gradients = updates.gaussian_gradients(seed, (side, side))
    A, P = gradients[:2]
    similar = abs(torch.trace(P @ A @ torch.linalg.inv(P)) - torch.trace(A)) / A.norm()
    U, V = rotations(side, 2, seed)
    two_bases = abs(torch.trace(U @ A @ V) - torch.trace(A)) / A.norm()
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(side, generator=generator) for _ in SHAPE)
    apart = {
        name: deviation(
            trained(make, gradients[:, rows][:, :, columns]),
            trained(make, gradients)[rows][:, columns],
        )
        for name, make in (("AdamW", updates.adamw), ("Muon", updates.muon))
    }
    kept, special = float(similar) < ROUNDING, max(apart.values()) > ROUNDING
    figures = ", ".join(f"{name}'s by {value:.0e}" for name, value in apart.items())
    return Check(
        name="trace_invariance",
        statement="the trace does not change under P A P^-1, so the diagonal is not like the rest",
        value=float(similar),
        low=None,
        high=None,
        n=1,
        unit="change of the trace / Frobenius norm",
        verdict=REFUTED if not kept else CONFIRMED if special else DEPENDS,
        condition=f"Gaussian A and P, {side}x{side}; weights have two bases, and the trace of "
        f"P A Q differs by {float(two_bases):.2f}; permuting rows and columns moves any entry onto "
        f"the diagonal: before the update or after it, the result differs, {figures}; confirmed if "
        "the trace stays and an update tells the diagonal apart, refuted if the trace does not "
        "stay",
        source=NOTES_A,
    )


def _size() -> str:
    return "x".join(map(str, SHAPE))


# training on a problem -------------------------------------------------------------------------

OUTPUTS, INPUTS, BATCH = 16, 24, 32
CONDITION = 1e4  # condition number of the inputs' covariance
TRAINING = 200  # steps; the rate decays linearly to zero
RATES = (0.03, 0.1, 0.3, 1.0)


class Problem(NamedTuple):
    """Linear least squares, y = W x + noise, written in several bases; the first is its own.

    P_knn, Q_kmm: the bases; W_nm: the weights to find; variances_m: of the inputs, which are
    independent in the first basis; X_tmb, Y_tnb: one batch per step.
    """

    P_knn: Tensor
    Q_kmm: Tensor
    W_nm: Tensor
    variances_m: Tensor
    X_tmb: Tensor
    Y_tnb: Tensor


def least_squares(bases: int, seed: int) -> Problem:
    """The labels are noisy, so that the momentum stays away from zero.

    Near zero, msign amplifies rounding like everything else, and no two bases agree.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=generator)

    W = normal(OUTPUTS, INPUTS)
    variances = torch.from_numpy(np.geomspace(1, 1 / CONDITION, INPUTS))
    X = normal(TRAINING, INPUTS, BATCH) * variances.sqrt().unsqueeze(-1)
    Y = W @ X + normal(TRAINING, OUTPUTS, BATCH)
    P, Q = (
        torch.cat([torch.eye(n, dtype=torch.float64)[None], rotations(n, bases, seed + i)])
        for i, n in enumerate((OUTPUTS, INPUTS))
    )
    return Problem(P, Q, W, variances, X, Y)


def final_losses(problem: Problem, make: Callable[..., Optimizer], lr: float) -> Array:
    """The expected loss above the noise's after training from zero, by basis."""
    P, Q, W, variances, X_tmb, Y_tnb = problem
    found = [torch.zeros(OUTPUTS, INPUTS, dtype=torch.float64, requires_grad=True) for _ in P]
    optimizer = make(found, lr=lr, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / TRAINING)
    for X_mb, Y_nb in zip(X_tmb, Y_tnb, strict=True):
        X, Y = Q.mT @ X_mb, P @ Y_nb
        gradients = (torch.stack(found).detach() @ X - Y) @ X.mT / BATCH
        for p, gradient in zip(found, gradients, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
        decay.step()
    error = P.mT @ torch.stack(found).detach() @ Q.mT - W
    return (error**2 * variances).sum((1, 2)).numpy() / 2


def rotated_problem(problem: Problem) -> Check:
    """Each optimizer at its best rate in each basis."""
    at_rates = {
        name: np.array([final_losses(problem, make, lr) for lr in RATES])
        for name, make in (("AdamW", updates.adamw), ("Muon", updates.muon))
    }
    best = np.array([losses.argmin(axis=0) for losses in at_rates.values()])
    at_end = int(((best == 0) | (best == len(RATES) - 1)).sum())
    final = {name: losses.min(axis=0) for name, losses in at_rates.items()}
    spread = {name: float(losses.max() / losses.min() - 1) for name, losses in final.items()}
    own, rotated = final["AdamW"][0], final["AdamW"][1:]
    return Check(
        name="rotated_problem",
        statement="a rotation of the basis changes what AdamW reaches, and not what Muon reaches",
        value=float(rotated.mean() / own),
        low=float(rotated.min() / own),
        high=float(rotated.max() / own),
        n=len(rotated),
        unit="AdamW's final loss in a rotated basis / in the inputs' own: mean, range over bases",
        verdict=verdict(spread["Muon"] < 1e-6 and spread["AdamW"] > 0.1, spread["AdamW"] < 1e-6),
        condition=f"least squares, {OUTPUTS}x{INPUTS}, inputs' condition {CONDITION:g}, batches of "
        f"{BATCH}, noisy labels, {TRAINING} steps, best of {len(RATES)} rates in each basis (at an "
        f"end of them {at_end} times of {best.size}); final loss: AdamW {own:.4f} in the inputs' "
        f"own basis, {rotated.mean():.4f} in rotated ones; Muon {final['Muon'].mean():.4f}; "
        f"largest / smallest - 1 over bases: AdamW {spread['AdamW']:.2f}, Muon "
        f"{spread['Muon']:.0e}; confirmed if Muon's is below 1e-6 and AdamW's above 0.1",
        source=NOTES_A,
    )

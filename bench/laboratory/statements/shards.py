"""Statements on sharding: may the parts of a matrix be updated separately?

Columns are cut, as in tensor parallelism: weight[:, :half] and weight[:, half:]. The saved
communication cannot be measured in one process.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from bench.laboratory import matrices
from bench.laboratory.matrices import Matrices, frobenius
from bench.laboratory.settings import Source
from bench.laboratory.statements import updates
from bench.laboratory.statements.check import NOTES_A, STEPS, Array, Check, over, verdict
from bench.laboratory.statements.updates import SHAPE, Make, deviation, trained
from optimizers.coefficients import KELLER
from optimizers.orthogonalize import msign, orthogonalize

SHARDS = (2, 4, 8)
# Kinds of momenta: without structure, with decaying spectrum, with few directions.
SOURCES = (Source("gaussian"), Source("power_law", 1.0), Source("low_rank", 0.1))
SHAPES = ((128, 128), (128, 512), (512, 128))
SAMPLES = 4


def checks(seed: int) -> Iterator[Check]:
    yield adam_shards(seed)
    yield muon_needs_whole_matrix(seed)
    stacks = [
        matrices.formed(source, shape, SAMPLES, seed) for source, shape in product(SOURCES, SHAPES)
    ]
    yield blockwise_deviation(stacks)


# the optimizers, on shards ---------------------------------------------------------------------


def in_shards(make: Make, gradients_tnm: Tensor, count: int) -> Tensor:
    """Updates each shard of the columns with a separate optimizer."""
    parts = [trained(make, part.contiguous()) for part in gradients_tnm.chunk(count, -1)]
    return torch.cat(parts, -1)


def adam_shards(seed: int) -> Check:
    gradients = updates.gaussian_gradients(seed).float()
    whole = trained(updates.adamw, gradients)
    off = [
        float((in_shards(updates.adamw, gradients, count) - whole).abs().max()) for count in SHARDS
    ]
    return Check(
        name="adam_shards",
        statement="AdamW updates shards without communication",
        value=max(off),
        low=min(off),
        high=max(off),
        n=len(SHARDS),
        unit="largest difference between weights updated in shards and as a whole",
        verdict=verdict(max(off) == 0, max(off) > 1e-6),
        condition=f"{updates.STEPS} steps, {SHAPE[0]}x{SHAPE[1]} in fp32, columns in {_counts()} "
        "shards, an optimizer each; confirmed if equal bit by bit, refuted above 1e-6",
        source=NOTES_A,
    )


def muon_needs_whole_matrix(seed: int) -> Check:
    gradients = updates.gaussian_gradients(seed)
    whole = trained(updates.muon, gradients)
    off = [deviation(in_shards(updates.muon, gradients, count), whole) for count in SHARDS]
    return Check(
        name="muon_needs_whole_matrix",
        statement="Muon needs the whole matrix: shards must be gathered before its step",
        **over(off),
        unit="relative deviation of weights updated in shards: median, range over their number",
        verdict=verdict(min(off) > 0.01, max(off) < 1e-10),
        condition=f"{updates.STEPS} steps on Gaussian gradients, {SHAPE[0]}x{SHAPE[1]} in fp64; "
        f"{_figures(off)}; confirmed if every one is above 0.01, refuted if all are rounding",
        source=NOTES_A,
    )


# blocks as an approximation --------------------------------------------------------------------


class Blockwise(NamedTuple):
    """The result of orthogonalizing the shards one by one, one number per matrix.

    deviation: |B - U| / |U|, with U from the whole matrix and B from the shards, scaled to one
    norm, because the rate can change B's norm. orthogonality_error: that of B, as in iteration.py.
    """

    deviation_b: Array
    orthogonality_error_b: Array


def blockwise(stack: Matrices, method: Callable[[Tensor], Tensor], count: int) -> Blockwise:
    B = torch.cat([method(part) for part in stack.X_bnm.chunk(count, -1)], -1)
    return Blockwise(
        normed_deviation(B, method(stack.X_bnm)), orthogonality_error(B, stack.msign_bnm)
    )


def official(X_bnm: Tensor) -> Tensor:
    return orthogonalize(X_bnm, [KELLER] * STEPS)


def normed_deviation(B_bnm: Tensor, U_bnm: Tensor) -> Array:
    return frobenius(_scaled(B_bnm, U_bnm) - U_bnm).div(frobenius(U_bnm)).flatten().numpy()


def orthogonality_error(B_bnm: Tensor, msign_bnm: Tensor) -> Array:
    B, Q = _scaled(B_bnm, msign_bnm), msign_bnm
    if B.shape[-2] > B.shape[-1]:
        B, Q = B.mT, Q.mT
    return frobenius(B @ B.mT - Q @ Q.mT).div(frobenius(Q)).flatten().numpy()


def blockwise_deviation(stacks: list[Matrices]) -> Check:
    """Compared with the distance of five steps from the exact factor, for the same matrices."""
    exact, five = (
        [[blockwise(stack, method, count) for stack in stacks] for count in SHARDS]
        for method in (msign, official)
    )
    off, off_five = ([_means(row) for row in found] for found in (exact, five))
    errors = [[float(one.orthogonality_error_b.mean()) for one in row] for row in exact]
    steps = [float(normed_deviation(official(s.X_bnm), s.msign_bnm).mean()) for s in stacks]
    closer = [d <= own for row in off for d, own in zip(row, steps, strict=True)]
    every = [d for row in off for d in row]
    return Check(
        name="blockwise_deviation",
        statement="orthogonalizing blocks approximates orthogonalizing the whole matrix",
        **over(every),
        unit="relative deviation from msign of the whole, at one norm: median, range over cases",
        verdict=verdict(all(closer), not any(closer)),
        condition=f"{', '.join(map(str, SOURCES))}; {_shapes(stacks)}; columns in {_counts()} "
        f"blocks; exact: {_ranges(off)}; official coefficients on both: {_ranges(off_five)}; "
        f"orthogonality error of exact blocks: {_ranges(errors)}; five steps on the whole "
        f"are themselves {min(steps):.2f} to {max(steps):.2f} off; confirmed if blocks are never "
        f"further off than these, refuted if always ({sum(closer)} of {len(closer)} are not)",
        source=NOTES_A,
    )


def _scaled(X_bnm: Tensor, like_bnm: Tensor) -> Tensor:
    return X_bnm * (frobenius(like_bnm) / frobenius(X_bnm))[:, None, None]


def _means(row: list[Blockwise]) -> list[float]:
    return [float(one.deviation_b.mean()) for one in row]


def _figures(values: list[float]) -> str:
    return ", ".join(f"{n} shards {x:.2f}" for n, x in zip(SHARDS, values, strict=True))


def _ranges(rows: list[list[float]]) -> str:
    pairs = zip(SHARDS, rows, strict=True)
    return ", ".join(f"{n} blocks {min(row):.2f} to {max(row):.2f}" for n, row in pairs)


def _counts() -> str:
    return ", ".join(map(str, SHARDS))


def _shapes(stacks: list[Matrices]) -> str:
    return ", ".join(dict.fromkeys("x".join(map(str, s.X_bnm.shape[1:])) for s in stacks))

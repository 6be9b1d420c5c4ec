"""The statement that static shapes suit compilers: counts recompilations and times the gain."""

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from bench.laboratory.statements.check import (
    CONFIRMED,
    NOTES_A,
    REFUTED,
    STEPS,
    Array,
    Check,
    unanswered,
    verdict,
)
from bench.measuring import turns
from optimizers.coefficients import KELLER
from optimizers.orthogonalize import orthogonalize

NO_RECOMPILATION = "static shapes need no recompilation"
GAIN = "static shapes let a compiler make the orthogonalization faster"
# Stacks that the step makes of the hidden matrices of gpt2_nano and of GPT-2 small.
SHAPES = ((16, 256, 256), (4, 256, 1024), (1, 768, 768), (1, 768, 3072))
BACKEND = "inductor"
STEPPED = 10  # steps after the first
ROUNDS = 11

Method = Callable[[Tensor], Tensor]


def checks(seed: int) -> Iterator[Check]:
    compiled = torch.compile(official, backend=BACKEND, dynamic=False)
    try:
        graphs = compiled_graphs(compiled, SHAPES, seed)
    except TorchDynamoException as error:  # for example without a C++ compiler
        cause = getattr(error, "inner_exception", error)
        reason = f"torch.compile fails here: {type(cause).__name__}: {cause}".splitlines()[0]
        yield unanswered("static_shapes", NO_RECOMPILATION, reason, NOTES_A)
        yield unanswered("compile_gain_of_same_work", GAIN, reason, NOTES_A)
    else:
        yield static_shapes(graphs)
        same = torch.compile(plain, backend=BACKEND, dynamic=False)
        yield compile_gain(times(same, SHAPES, seed))


def official(X_bnm: Tensor) -> Tensor:
    return orthogonalize(X_bnm, [KELLER] * STEPS)


def plain(X_bnm: Tensor) -> Tensor:
    """The same steps with whole products, so that compiled and eager code do the same work.

    Our own eager steps compute large symmetric products in pieces, which compiled code does not do.
    They would win the comparison by doing less work.
    """
    X = X_bnm / torch.linalg.matrix_norm(X_bnm, keepdim=True)
    for a, b, c in [KELLER] * STEPS:
        G = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(G, G, G, beta=b, alpha=c), X, beta=a)
    return X


def stacks(shapes: tuple[tuple[int, ...], ...], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# recompilations --------------------------------------------------------------------------------


class Graphs(NamedTuple):
    """Compiled graphs: in a first step, one call per shape, and in the steps that followed."""

    first: int
    later: int


def compiled_graphs(compiled: Method, shapes: tuple[tuple[int, ...], ...], seed: int) -> Graphs:
    torch.compiler.reset()
    before = counters["stats"]["unique_graphs"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's compiler warns of torch's own code
        for X in stacks(shapes, seed):
            compiled(X)
    first = counters["stats"]["unique_graphs"]
    for step in range(STEPPED):
        for X in stacks(shapes, seed + 1 + step):
            compiled(X)
    return Graphs(first - before, counters["stats"]["unique_graphs"] - first)


def static_shapes(graphs: Graphs) -> Check:
    return Check(
        name="static_shapes",
        statement=NO_RECOMPILATION,
        value=graphs.later,
        low=graphs.later,
        high=graphs.later,
        n=STEPPED,
        unit=f"recompilations in the {STEPPED} steps after the first",
        verdict=CONFIRMED if graphs.later == 0 else REFUTED,
        condition=f"five steps on stacks of {len(SHAPES)} shapes, other matrices every step; the "
        f"first step compiled {graphs.first} graphs; confirmed if later ones compile none",
        source=NOTES_A,
    )


# the gain --------------------------------------------------------------------------------------


def times(compiled: Method, shapes: tuple[tuple[int, ...], ...], seed: int) -> dict[str, Array]:
    """Seconds per call by round and shape, measured in turns."""
    inputs = stacks(shapes, seed)
    methods = {"eager": plain, "compiled": compiled, "eager again": plain, "pieces": official}

    def turn(method: Method) -> list[float]:
        taken = []
        for X in inputs:
            begin = time.perf_counter()
            method(X)
            taken.append(time.perf_counter() - begin)
        return taken

    def failed(name: str, error: Exception) -> None:
        raise error

    timed: dict[str, turns.Turn] = {
        name: functools.partial(turn, method) for name, method in methods.items()
    }
    kept = turns.take(timed, ROUNDS, lambda _: None, failed)
    return {name: np.array(taken) for name, taken in kept.items()}


def compile_gain(taken: dict[str, Array]) -> Check:
    """The time of a round over all shapes, without the compiler / with it."""
    eager, compiled, again = (taken[name] for name in ("eager", "compiled", "eager again"))
    gain = eager.sum(axis=1) / compiled.sum(axis=1)
    low, high = of_median(gain)
    pieces = float(np.median(eager.sum(axis=1) / taken["pieces"].sum(axis=1)))
    noise = of_median(again.sum(axis=1) / eager.sum(axis=1))
    by_shape = np.median(eager / compiled, axis=0)
    figures = ", ".join(
        f"{'x'.join(map(str, shape))} {value:.2f}"
        for shape, value in zip(SHAPES, by_shape, strict=True)
    )
    return Check(
        name="compile_gain_of_same_work",
        statement=GAIN,
        value=float(np.median(gain)),
        low=low,
        high=high,
        n=len(gain),
        unit="eager / compiled time: median and its 95 % interval over rounds",
        verdict=verdict(low > 1.05, high <= 1),
        condition=f"fp32, {torch.get_num_threads()} threads, in alternation; by shape of stack: "
        f"{figures}; eager against itself {noise[0]:.2f} to {noise[1]:.2f}; the first call, which "
        "compiles, is left out; both do whole products; by pieces of the symmetric ones, as a step "
        f"of ours does, eager code gains {pieces:.2f}; confirmed if the interval is above 1.05, "
        "refuted if it ends at 1 or below",
        source=NOTES_A,
    )


def of_median(values: Array) -> tuple[float, float]:
    """A 95 % interval of the median by order statistics, for any distribution."""
    low, high = stats.quantile_test(values).confidence_interval(0.95)
    return float(low), float(high)

"""The checks of compiling: graphs are counted, gains judged by their interval."""

import shutil

import numpy as np
import pytest
import torch

from bench.laboratory.statements import compiling
from bench.laboratory.statements.compiling import (
    Graphs,
    compile_gain,
    compiled_graphs,
    static_shapes,
)
from bench.measuring import flops

SHAPES = ((1, 4, 6), (2, 5, 5))


def no_compiler(graph, inputs):
    raise OSError("no compiler")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(compiling, "SHAPES", SHAPES)
    monkeypatch.setattr(compiling, "BACKEND", "eager")


def traced():
    return torch.compile(compiling.official, backend="eager", dynamic=False)


def test_fixed_shapes_compile_once():
    graphs = compiled_graphs(traced(), SHAPES, seed=0)
    assert graphs == Graphs(first=2, later=0)
    assert static_shapes(graphs).verdict == "confirmed"


def test_shapes_that_change_compile_again(monkeypatch):
    growing = iter(range(4, 100))
    monkeypatch.setattr(
        compiling, "stacks", lambda shapes, seed: [torch.randn(1, 3, next(growing))]
    )
    monkeypatch.setattr(compiling, "STEPPED", 3)
    graphs = compiled_graphs(traced(), SHAPES, seed=0)
    assert graphs == Graphs(first=1, later=3)
    assert static_shapes(graphs).verdict == "refuted"


def test_without_a_compiler_both_are_open(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", no_compiler)
    found = list(compiling.checks(seed=0))
    assert [check.name for check in found] == ["static_shapes", "compile_gain_of_same_work"]
    assert all(check.verdict == "open" and check.value is None for check in found)
    assert all("no compiler" in check.condition for check in found)


def test_gains_are_judged_by_the_interval_of_their_median():
    rng = np.random.default_rng(0)
    eager = rng.uniform(0.9, 1.1, (compiling.ROUNDS, 2))

    def gain(compiled):
        whole = {"eager": eager, "compiled": compiled, "eager again": eager, "pieces": eager / 3}
        check = compile_gain(whole)
        assert "eager code gains 3.00" in check.condition  # and is no part of the verdict
        return check

    assert gain(eager / 2).verdict == "confirmed" and gain(eager / 2).value == pytest.approx(2)
    assert gain(eager).verdict == "refuted" and gain(2 * eager).verdict == "refuted"
    assert gain(rng.permutation(eager)).verdict == "depends"
    low, high = compiling.of_median(np.arange(11.0))
    assert (low, high) == (1, 9)  # 97.9 % by the binomial distribution; (2, 8) would have 93.5 %


def test_compiler_and_eager_code_are_given_the_same_work():
    X = torch.randn(3, 600, 640)  # of a size at which a step of ours cuts symmetric products
    torch.testing.assert_close(compiling.plain(X), compiling.official(X), atol=1e-4, rtol=0)
    counted = flops.count(lambda: compiling.plain(X))
    assert counted.products == 3 * compiling.STEPS
    n, m = 600, 640
    assert counted.flops == 3 * compiling.STEPS * (2 * 2 * n * n * m + 2 * n**3)


def test_times_are_of_turns():
    taken = compiling.times(lambda X: X, SHAPES, seed=0)
    assert all(t.shape == (compiling.ROUNDS, len(SHAPES)) for t in taken.values())
    assert taken["compiled"].sum() < taken["eager"].sum()


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_code_gives_the_same(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    found = list(compiling.checks(seed=0))
    assert found[0].verdict == "confirmed" and found[1].value > 0
    X = torch.randn(*SHAPES[0])
    compiled = torch.compile(compiling.official, dynamic=False)
    torch.testing.assert_close(compiled(X), compiling.official(X), atol=1e-5, rtol=0)

"""Muon over processes: the arithmetic of regions and owners here; what several processes do
together is in sharded_steps.py."""

from collections import Counter
from itertools import chain, pairwise
from math import prod

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

from models import gpt2
from optimizers.muon import Muon
from optimizers.orthogonalize import Orthogonalizer
from optimizers.sharding.batches import longest_first
from optimizers.sharding.plan import STRATEGIES
from optimizers.sharding.regions import aligned, boxes, extent, local_view, region
from optimizers.views import LAYOUTS, View, as_matrix, fits, gather, matrix_shape, whole
from tests.helpers import sharded_steps


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.long)])
def test_steps_of_several_processes(size, tmp_path):
    torch.multiprocessing.spawn(sharded_steps.main, (size, tmp_path / "meeting"), nprocs=size)


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/one", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("sharding", STRATEGIES)
def test_one_process_takes_the_plain_step_whatever_is_asked_and_says_nothing(sharding, one_process):
    start = [sharded_steps.random(6, 10, seed=1), sharded_steps.random(7, seed=2)]
    plain = sharded_steps.parameters(start)
    sharded_steps.step(Muon(plain, second_moment="neuron", shards=1), range(3))
    for mesh in (None, one_process):
        params = sharded_steps.parameters(start, mesh, lambda i, t: [Shard(0)])
        with sharded_steps.silent():
            sharded_steps.step(Muon(params, second_moment="neuron", sharding=sharding), range(3))
        for ours, theirs in zip(params, plain, strict=True):
            assert torch.equal(sharded_steps.full(ours), theirs)


def test_a_strategy_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"sharding=shard: must be one of replicate, distribute"):
        Muon([nn.Parameter(torch.zeros(2, 2))], sharding="shard")


# regions -------------------------------------------------------------------------------------


@st.composite
def placed(draw):
    """A tensor of a layout, a mesh, and placements that each cut a dimension at most."""
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)
    shape = draw(sizes.filter(lambda s: fits(torch.empty(s, device="meta"), layout)))
    mesh = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
    cuts = st.integers(0, len(shape) - 1)
    kinds = [st.just(Replicate()), cuts.map(Shard)]
    first = [*kinds, cuts.map(lambda d: _StridedShard(d, split_factor=3))]
    placements = [draw(st.one_of(first)), *(draw(st.one_of(kinds)) for _ in mesh[1:])]
    return layout, shape, mesh, placements


def places(mesh):
    return [place.tolist() for place in torch.ones(mesh).nonzero()]


@settings(max_examples=200)
@given(placed())
def test_regions_cover_a_tensor_once_a_replica(case):
    _, shape, mesh, placements = case
    replicas = prod(
        n for n, placement in zip(mesh, placements, strict=True) if placement == Replicate()
    )
    covered = torch.zeros(shape, dtype=torch.int64)
    for place in places(mesh):
        found = region(shape, placements, mesh, place)
        local = torch.zeros(extent(found), dtype=torch.int64)
        for outer, inner in boxes(found):
            covered[outer] += 1
            local[inner] += 1
        assert (local == 1).all()
    assert (covered == replicas).all()


@settings(max_examples=200)
@given(placed(), st.integers(1, 3))
def test_local_views_cover_every_block_once_a_replica(case, pieces):
    """Entries are numbered; what processes' blocks hold is what the whole blocks hold."""
    layout, shape, mesh, placements = case
    tensor = torch.arange(prod(shape)).reshape(shape)
    if layout.startswith("channels_last"):
        return  # the memory format of a plain tensor; local ones are read densely
    view = whole(0, tensor, layout)
    if len(view["blocks"]) == 1:  # cut the one block further, as heads are
        length = matrix_shape(shape, layout)[view["axis"]]
        edges = [length * i // pieces for i in range(pieces + 1)]
        cut = [[[0, a, b]] for a, b in pairwise(edges) if a < b]
        view = View(**{**view, "blocks": cut})
    wanted = [block.flatten().tolist() for block in gather(view, [tensor])]
    held_by = [[region(shape, placements, mesh, place)] for place in places(mesh)]
    found, whole_everywhere = [], True
    for held in held_by:
        local = torch.empty(extent(held[0]), dtype=torch.int64)
        for outer, inner in boxes(held[0]):
            local[inner] = tensor[outer]
        mine = local_view(view, [shape], held)
        if mine is None:
            assert local.numel() == 0
            continue
        assert as_matrix(local, layout).shape == matrix_shape(local.shape, layout)
        blocks = [sorted(block.flatten().tolist()) for block in gather(mine, [local])]
        assert sorted(chain(*blocks)) == sorted(local.flatten().tolist())
        for block in blocks:  # within one of the whole ones
            (home,) = [w for w in wanted if set(block) <= set(w)]
            whole_everywhere &= block == sorted(home)
        found += chain(*blocks)
    replicas = len(found) // prod(shape)
    assert sorted(found) == sorted(list(range(prod(shape))) * replicas)
    assert aligned(view, [shape], held_by) == whole_everywhere


def test_regions_are_where_torch_puts_things(one_process):
    """At one process; at several the exact strategies would go wrong (sharded_steps)."""
    tensor = torch.arange(30)
    for placement in (Shard(0), Replicate(), _StridedShard(0, split_factor=3)):
        local = distribute_tensor(tensor, one_process, [placement]).to_local()
        (_, inner), *_ = boxes(region([30], [placement], [1], [0]))
        assert torch.equal(local[inner], tensor)


def test_heads_that_are_cut_before_they_are_told_apart_are_refused():
    with pytest.raises(ValueError, match="dimension 1 is cut, and then again in 3 pieces"):
        region((4, 12), (Shard(1), _StridedShard(1, split_factor=3)), (2, 2), (0, 0))


# owners --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(1, 8))
def test_no_load_exceeds_the_least_by_more_than_a_unit(costs, processes):
    owners = longest_first(costs, costs, processes)
    assert len(owners) == len(costs)
    loads = [sum(c for c, o in zip(costs, owners, strict=True) if o == i) for i in range(processes)]
    assert max(loads) <= min(loads) + max(costs, default=0) + 1e-6


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize(("layers", "width"), [(4, 256), (12, 768)])
def test_gpt2s_are_balanced_within_a_tenth(layers, width, processes, dtype):
    """gpt2_nano and GPT-2 small."""
    orthogonalizer = Orthogonalizer(dtype=dtype)
    with torch.device("meta"):
        model = gpt2.build(vocab_size=1, layers=layers, heads=4, width=width, positions=1)
    shapes = [p.shape for p in model.transformer.h.parameters() if p.ndim == 2]
    assert len(shapes) == 4 * layers
    costs = [orthogonalizer.multiplications(*shape, torch.device("cpu")) for shape in shapes]
    loads, numbers = [0.0] * processes, Counter()
    owners = longest_first(costs, shapes, processes)
    for cost, shape, owner in zip(costs, shapes, owners, strict=True):
        loads[owner] += cost
        numbers[shape, owner] += 1
    assert max(loads) <= 1.1 * sum(costs) / processes
    assert min(loads) >= 0.9 * sum(costs) / processes
    # Of each shape, too: those of one shape are orthogonalized before anyone has the next.
    assert set(numbers.values()) == {layers // processes} and len(numbers) == 4 * processes


@pytest.mark.parametrize("method", ["auto", "gram", "newton_schulz"])
@pytest.mark.parametrize("shape", [(8, 8), (24, 80), (600, 520), (7, 1)])
def test_multiplications_are_half_the_flops_that_are_counted(method, shape):
    orthogonalizer = Orthogonalizer(method=method, dtype="fp32")
    counted = sharded_steps.flops.count(lambda: orthogonalizer(torch.randn(1, *shape))).flops
    said = orthogonalizer.multiplications(*shape, torch.device("cpu"))
    assert counted == pytest.approx(2 * said, rel=0.01)

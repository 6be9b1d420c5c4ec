"""What tests/optimizers/sharding/test_plan.py runs in each of several processes."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

from bench.measuring import flops
from optimizers.muon import Muon
from optimizers.routing import route
from optimizers.state import state_bytes
from optimizers.views import View, whole

FP64 = {"dtype": "fp64"}
HEADS, WIDTH = 4, 24


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heads(members: list[int], layout: str, ends: list[list[list[int]]]) -> View:
    return View(members=members, layout=layout, axis=0, blocks=ends)


def tensors() -> tuple[list[Tensor], dict[str, list[View]]]:
    """Parameters as GPT-2 and ViT have them, some of which no world size divides, and their views
    by how q, k and v are read."""
    shapes = [
        (WIDTH, 3 * WIDTH),  # 0 Conv1D of q, k, v
        (WIDTH, WIDTH),  # 1 output projection
        (WIDTH, 50),  # 2 MLP
        (50, WIDTH),  # 3
        (WIDTH, WIDTH),  # 4-6 q, k, v linears
        (WIDTH, WIDTH),
        (WIDTH, WIDTH),
        (17, WIDTH),  # 7 embedding
        (1, 5, WIDTH),  # 8 positions
        (WIDTH, 3, 2, 2),  # 9 patches
        (3 * WIDTH,),  # 10 bias
        (3,),  # 11
        (3, 10, 7),  # 12 experts
        (50, WIDTH),  # 13 as 3: two of one shape
    ]
    start = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    others = [
        *(whole(i, start[i], "transposed") for i in (1, 2, 3, 13)),
        *(whole(i, start[i], "table") for i in (7, 8)),
        whole(9, start[9], "kernel"),
        whole(10, start[10], "vector"),
        whole(11, start[11], "vector"),
        whole(12, start[12], "batch"),
    ]
    size = WIDTH // HEADS
    cuts = {"fused": [0, 3 * WIDTH], "split": range(0, 3 * WIDTH + 1, WIDTH)}
    cuts["per_head"] = range(0, 3 * WIDTH + 1, size)
    views = {}
    for name, edges in cuts.items():
        inside = [[[0, a, b]] for a, b in pairwise(edges)]
        joined = [[[i, 0, WIDTH] for i in (4, 5, 6)]]
        if name == "split":
            joined = [[[i, 0, WIDTH]] for i in (4, 5, 6)]
        if name == "per_head":
            joined = [[[i, h * size, (h + 1) * size]] for i in (4, 5, 6) for h in range(HEADS)]
        views[name] = [
            heads([0], "transposed", inside),
            heads([4, 5, 6], "matrix", joined),
            *others,
        ]
    return start, views


def gradient(step: int, number: int, shape: torch.Size) -> Tensor:
    return random(*shape, seed=1000 * (step + 1) + number)


def step(optimizer: Muon, steps: range) -> None:
    """Steps on gradients that are the same on every process; at step 1 two tensors have none, of
    which one may be joined with others."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for number in steps:
        for i, p in enumerate(params):
            p.grad = None
            if (number, i) not in ((1, 3), (1, 5)):
                p.grad = sharded_like(gradient(number, i, p.shape).to(p.dtype), p)
        optimizer.step()


def sharded_like(g: Tensor, p: Tensor) -> Tensor:
    if not isinstance(p, DTensor):
        return g
    return distribute_tensor(g, p.device_mesh, p.placements, src_data_rank=None)


def full(p: Tensor) -> Tensor:
    return p.full_tensor() if isinstance(p, DTensor) else p.detach()


@contextmanager
def listening():
    """Collects how many collectives run inside."""
    from torch.distributed.tensor.debug import CommDebugMode  # imports torch's compiler

    heard: list[int] = []
    with CommDebugMode() as mode:
        yield heard
    heard.append(mode.get_total_counts())


@contextmanager
def silent():
    """Whatever runs inside must not communicate."""
    with listening() as heard:
        yield
    assert heard == [0]


def layouts(size: int) -> dict[str, tuple[DeviceMesh, Callable[[int, Tensor], list]]]:
    """Ways to place the tensors: name -> (mesh, placements of tensor number i)."""
    line = init_device_mesh("cpu", (size,), mesh_dim_names=("tp",))

    def tensor_parallel(i: int, t: Tensor) -> list:
        by_heads = {0: _StridedShard(1, split_factor=3), 10: _StridedShard(0, split_factor=3)}
        if i in by_heads:
            return [by_heads[i]]
        if i in (1, 3, 13, 4, 5, 6):
            return [Shard(0)]
        return [Shard(1)] if i == 2 else [Replicate()]

    found = {
        "rows": (line, lambda i, t: [Shard(0)]),
        "columns": (line, lambda i, t: [Shard(1 if t.ndim > 1 else 0)]),
        "last": (line, lambda i, t: [Shard(t.ndim - 1)]),
        "heads": (line, tensor_parallel),
        "replicas": (line, lambda i, t: [Replicate()]),
    }
    if size == 4:
        plane = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))

        def both(i: int, t: Tensor) -> list:
            right = tensor_parallel(i, t)[0]
            if right == Shard(0):
                return [_StridedShard(0, split_factor=2), right]
            if i == 10:
                return [Replicate(), right]
            return [Shard(0), right]

        found["plane"] = (plane, both)
        found["hybrid"] = (plane, lambda i, t: [Replicate(), Shard(0)])
    return found


def parameters(start: list[Tensor], mesh: DeviceMesh | None = None, placed=None) -> list:
    if mesh is None:
        return [nn.Parameter(t.clone()) for t in start]
    return [
        nn.Parameter(distribute_tensor(t.clone(), mesh, placed(i, t), src_data_rank=None))
        for i, t in enumerate(start)
    ]


def assert_close(ours: list, theirs: list, what: str, tolerance: float = 1e-9) -> None:
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        far = (full(a) - full(b)).abs().max().item()
        assert far <= tolerance, f"{what}: tensor {number} is {far} off"


def muon(params: list, views: list[View] | None, **settings) -> Muon:
    settings.setdefault("orthogonalizer", FP64)
    return Muon([{"params": params, "views": views}], lr=0.05, **settings)


def the_exact_strategies_give_the_updates_of_one_process(size: int) -> None:
    """On every placement, over three steps."""
    start, views = tensors()
    variants = {
        "fused": {"scale": "original", "cautious": True},
        "split": {"sign": True, "momentum_form": "classical"},
        "per_head": {"momentum_dtype": "fp32"},
    }
    placed = {"plain": (None, None), **layouts(size)}
    for turn, (mode, settings) in enumerate(variants.items()):
        alone = parameters(start)
        step(muon(alone, views[mode], **settings), range(3))
        for number, (name, (mesh, rule)) in enumerate(placed.items()):
            if size > 2 and number % len(variants) != turn:
                continue  # at two processes every mode on every placement
            for sharding in ("distribute", "gather" if mesh else "replicate"):
                many = parameters(start, mesh, rule)
                optimizer = muon(many, views[mode], sharding=sharding, **settings)
                step(optimizer, range(3))
                assert_close(many, alone, f"{mode} {name} {sharding}")
                for p in many:
                    buffer = optimizer.state[p]["momentum_buffer"]
                    assert getattr(buffer, "placements", 0) == getattr(p, "placements", 0)


def a_share_of_the_flops(size: int) -> None:
    """Each process counts 1/N of them within a tenth; together they are those of one process."""
    sides = [(1, 3), (1, 1), (1, 4), (4, 1)] * 4  # of four layers of a GPT-2
    hidden = [random(64 * n, 64 * m, seed=i).float() for i, (n, m) in enumerate(sides)]
    line = init_device_mesh("cpu", (size,))
    settings = {"orthogonalizer": {"dtype": "fp32"}}
    one = muon(parameters(hidden), None, **settings)
    wanted = counted(one)
    for mesh in (None, line):
        many = muon(
            parameters(hidden, mesh, lambda i, t: [Shard(0)]),
            None,
            sharding="distribute",
            **settings,
        )
        shares: list = [None] * size
        dist.all_gather_object(shares, counted(many))
        assert sum(shares) == wanted
        assert max(shares) <= 1.1 * wanted / size and min(shares) >= 0.9 * wanted / size
    gathered = muon(parameters(hidden, line, lambda i, t: [Shard(0)]), None, sharding="gather")
    assert counted(gathered) > 1.5 * wanted / size


def counted(optimizer: Muon) -> int:
    return flops.count(lambda: step(optimizer, range(1))).flops


def what_lies_whole_does_not_travel(size: int) -> None:
    """Heads of a fused and of separate projections, vectors on every process; and blockwise."""
    start, views = tensors()
    placed = layouts(size)
    mesh, by_heads = placed["heads"]
    rows = placed["rows"]
    chosen = [0, 4, 5, 6, 11]
    some = [start[i] for i in chosen]
    renamed = [
        dict(view)
        | {"members": [chosen.index(k) for k in view["members"]]}
        | {"blocks": [[[chosen.index(k), *e] for k, *e in b] for b in view["blocks"]]}
        for view in views["per_head"]
        if set(view["members"]) <= set(chosen)
    ]
    alone = parameters(some)
    step(muon(alone, renamed), range(2))
    strided = [by_heads(k, start[k]) for k in chosen]
    contiguous = [[Shard(1)], *[[Shard(0)]] * 3, [Replicate()]]  # as shard_placement_fn may say
    for sharding in ("distribute", "gather", "blockwise"):
        for placements in (strided, contiguous):
            many = parameters(some, mesh, lambda i, t, to=placements: to[i])
            with silent():
                step(muon(many, renamed, sharding=sharding), range(2))
            assert_close(many, alone, f"heads {sharding}")
    with silent():
        step(muon(parameters(start, *rows), views["fused"], sharding="blockwise"), range(2))
    for sharding in ("distribute", "gather"):
        with listening() as heard:
            step(muon(parameters(start, *rows), views["fused"], sharding=sharding), range(1))
        assert heard[0] > 0


def a_block_is_stepped_as_a_matrix_of_its_own(size: int) -> None:
    start = [random(17, 6, seed=1), random(8, 12, seed=2)]
    line = init_device_mesh("cpu", (size,))
    for dim in (0, 1):
        many = parameters(start, line, lambda i, t, dim=dim: [Shard(dim)])
        step(muon(many, None, sharding="blockwise", scale="original"), range(2))
        for i, p in enumerate(many):
            pieces = [nn.Parameter(t.clone()) for t in start[i].chunk(size, dim)]
            optimizer = muon(pieces, None, scale="original")
            for number in range(2):
                whole_gradient = gradient(number, i, start[i].shape)
                for piece, g in zip(pieces, whole_gradient.chunk(size, dim), strict=True):
                    piece.grad = g.contiguous()
                optimizer.step()
            assert_close([p], [torch.cat([x.detach() for x in pieces], dim)], f"blocks {dim}")


def a_gradient_may_lie_otherwise_than_its_parameter(size: int) -> None:
    line = init_device_mesh("cpu", (size,))
    start = [random(7, 5, seed=1)]
    (alone,) = parameters(start)
    alone.grad = random(7, 5, seed=2)
    muon([alone], None).step()
    for lies in (Replicate(), Shard(1), Partial()):
        (many,) = parameters(start, line, lambda i, t: [Shard(0)])
        share = alone.grad / size if lies == Partial() else alone.grad
        many.grad = (
            DTensor.from_local(share, line, [lies])
            if lies == Partial()
            else distribute_tensor(share, line, [lies], src_data_rank=None)
        )
        muon([many], None, sharding="distribute").step()
        assert_close([many], [alone], f"gradient {lies}")


def a_gradient_that_one_process_lacks_leaves_its_part_as_it_is(size: int) -> None:
    """And holds nobody up."""
    line = init_device_mesh("cpu", (size,))
    start = [random(8, 6, seed=1), random(6, 8, seed=2)]
    placed = [[Shard(0)], [Shard(0)]]
    for sharding in ("distribute", "gather"):
        many = parameters(start, line, lambda i, t: placed[i])
        optimizer = muon(many, None, sharding=sharding)
        for p, g in zip(many, start, strict=True):
            p.grad = sharded_like(g, p) if dist.get_rank() else None
        optimizer.step()
        for p, g in zip(many, start, strict=True):
            rows = -(-len(g) // size)  # of the first process
            moved = (full(p) != g).any(1)
            assert not moved[:rows].any() and moved[rows:].all()
            assert (p in optimizer.state) == (dist.get_rank() > 0)


def a_group_without_tensors_takes_part_in_nothing(size: int) -> None:
    for sharding in ("replicate", "distribute"):
        (p,) = parameters([random(4, 6, seed=1)])
        frozen = nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)
        optimizer = Muon([{"params": []}, {"params": [frozen]}, {"params": [p]}], sharding=sharding)
        p.grad = random(4, 6, seed=2)
        optimizer.step()
        assert list(optimizer.state) == [p]


def a_state_is_loaded_where_it_was_saved(size: int) -> None:
    """Settings travel, but for `sharding`."""
    start, views = tensors()
    mesh, rule = layouts(size)["rows"]
    straight, broken = (parameters(start, mesh, rule) for _ in range(2))
    step(muon(straight, views["split"], sharding="gather"), range(4))
    first = muon(broken, views["split"], sharding="gather")
    step(first, range(2))
    saved = first.state_dict()
    second = muon(broken, views["split"], sharding="distribute")
    second.load_state_dict(saved)
    assert second.param_groups[0]["sharding"] == "distribute"
    step(second, range(2, 4))
    assert_close(broken, straight, "loaded")


def a_model_is_read_whole_and_then_sharded(size: int) -> None:
    """By fully_shard, as GPT-2 and ViT are trained: same table, same step, 1/N of the state."""
    from models import gpt2, vit  # seconds that the other checks need not wait for

    line = init_device_mesh("cpu", (size,))
    models = {
        "gpt2": lambda: gpt2.build(vocab_size=32, layers=2, heads=4, width=32, positions=16),
        "vit": lambda: vit.build(
            image_size=8, patch_size=4, channels=1, classes=10, layers=2, heads=4, width=32
        ),
    }
    rule = {"_target_": "optimizers.muon.Muon", "lr": 0.05, "orthogonalizer": FP64}
    block = {"name": "muon", "lr_scale": 1.0, "aux_lr_scale": 1.0}
    for name, build in models.items():
        for qkv in ("fused", "per_head"):
            roles = {"default": rule | {"qkv": {"name": qkv}}}
            torch.manual_seed(0)
            alone, many = build().double(), build().double()
            many.load_state_dict(alone.state_dict())
            one = route(alone, block | {"roles": roles})
            routing = route(
                many,
                block | {"roles": roles},
                shard=lambda model, _: fully_shard(model, mesh=line),
                sharding="distribute",
            )
            assert routing.table == one.table
            assert routing.roles.keys() == one.roles.keys()
            held = dict(many.named_parameters())
            assert all(isinstance(p, DTensor) for ps in routing.roles.values() for p in ps)
            for i, (key, p) in enumerate(alone.named_parameters()):
                p.grad = gradient(0, i, p.shape)
                held[key].grad = sharded_like(p.grad, held[key])
            one.step()
            routing.step()
            for key, p in alone.named_parameters():
                assert_close([held[key]], [p], f"{name} {qkv} {key}")
            whole_state = state_bytes(one.optimizers)["total"]
            state = state_bytes(routing.optimizers)
            assert state["total"] == state["predicted"]
            assert 0.9 * whole_state <= size * state["total"] <= 1.1 * whole_state


def replicas_round_8_bit_momentum_alike(size: int) -> None:
    start, views = tensors()
    params = parameters([t.float() for t in start])
    optimizer = muon(params, views["split"], momentum_dtype="int8")
    torch.manual_seed(dist.get_rank())  # torch's own dice differ
    step(optimizer, range(3))
    found: list = [None] * size
    dist.all_gather_object(found, [optimizer.state[p] for p in params])
    for states in found[1:]:
        for one, other in zip(found[0], states, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def what_cannot_be_is_refused(size: int) -> None:
    start = [random(8, 8, seed=1)]
    line = init_device_mesh("cpu", (size,))
    plain = parameters(start)
    sharded = parameters(start, line, lambda i, t: [Shard(0)])
    for params, settings, said in (
        (sharded, {"sharding": "replicate"}, "takes distribute, gather, blockwise"),
        (plain, {"sharding": "gather"}, "takes replicate, distribute"),
        (plain, {"sharding": "blockwise"}, "sharding=blockwise"),
        (sharded, {"sharding": "gather", "second_moment": "neuron"}, "second_moment=neuron"),
        (plain, {"sharding": "distribute", "shards": 2}, "shards=2"),
        (sharded, {"sharding": "gather", "momentum_dtype": "int8"}, "momentum_dtype=int8"),
        (plain, {"sharding": "distribute", "keep_norm": True, "weight_decay": 0.0}, "keep_norm"),
        (plain + sharded, {"sharding": "distribute"}, "one mesh"),
    ):
        refused(lambda p=params, s=settings: muon(p, None, **s), said)
    eighths = muon(plain, None, sharding="replicate", momentum_dtype="int8")
    step(eighths, range(1))
    other = muon(plain, None, sharding="distribute")
    refused(lambda: other.load_state_dict(eighths.state_dict()), "momentum_dtype=int8: needs")
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    rule = {"_target_": "torch.optim.AdamW", "lr": 1e-3}
    roles = {"hidden": {"_target_": "torch.optim.Muon", "lr": 0.02}, "default": rule}
    block = {"name": "torch_muon", "lr_scale": 1.0, "aux_lr_scale": 1.0, "roles": roles}
    refused(
        lambda: route(model, block, shard=lambda m, _: fully_shard(m, mesh=line)),
        "optimizer=torch_muon: torch's Muon does not know shards, use optimizer=hybrid",
    )


def refused(work: Callable[[], object], said: str) -> None:
    try:
        work()
    except ValueError as error:
        assert said in str(error) and "\n" not in str(error), error
    else:
        raise AssertionError(f"not refused: {said}")


def together(
    checks: list[Callable[[int], None]], rank: int, size: int, meeting_place: Path
) -> None:
    """The checks one after another, as one of several processes."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting_place}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    for check in checks:
        began = time.perf_counter()
        check(size)
        if rank == 0:
            print(f"{check.__name__} {time.perf_counter() - began:.1f} s", flush=True)
    dist.destroy_process_group()


def main(rank: int, size: int, meeting_place: Path) -> None:
    checks = [
        the_exact_strategies_give_the_updates_of_one_process,
        a_share_of_the_flops,
        a_block_is_stepped_as_a_matrix_of_its_own,
        a_gradient_may_lie_otherwise_than_its_parameter,
        a_gradient_that_one_process_lacks_leaves_its_part_as_it_is,
        a_group_without_tensors_takes_part_in_nothing,
        a_state_is_loaded_where_it_was_saved,
        replicas_round_8_bit_momentum_alike,
        what_cannot_be_is_refused,
    ]
    if size == 2:  # these import for seconds
        checks += [what_lies_whole_does_not_travel, a_model_is_read_whole_and_then_sharded]
    together(checks, rank, size, meeting_place)

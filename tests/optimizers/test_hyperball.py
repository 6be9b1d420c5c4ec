"""Steps that keep the norm of each matrix (MuonH), against their formula on single matrices."""

import pytest
import torch

from optimizers.muon import Muon
from optimizers.orthogonalize import Orthogonalizer
from optimizers.structure import describe
from optimizers.structure.qkv import build_views
from optimizers.views import gather
from tests.helpers.matrices import PLAIN64, moved, parameters, random, train
from tests.helpers.zoo import batch, tiny_gpt2

pytestmark = pytest.mark.cpu

msign64 = Orthogonalizer(**PLAIN64)
KEPT = {"keep_norm": True, "weight_decay": 0.0}


def norm(X):
    return X / X.norm()


def run(start, steps=7, **options):
    (p,) = parameters(start)
    optimizer = Muon([p], orthogonalizer=PLAIN64, **KEPT, **options)
    for step in range(steps):
        p.grad = random(*p.shape, seed=step)
        optimizer.step()
    return p.detach()


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8), (7, 1)])
@pytest.mark.parametrize("lr", [0.01, 0.5, torch.tensor(0.1)])
def test_a_step_is_as_long_as_the_rate_says_and_ends_on_the_sphere(shape, lr):
    W, M = random(*shape), torch.zeros(shape, dtype=torch.float64)
    R = W.norm()  # |W_0|, in every step
    for step in range(7):
        G = random(*shape, seed=step)
        M = 0.95 * M + 0.05 * G
        U = msign64((0.95 * M + 0.05 * G)[None])[0]
        W = norm(W - float(lr) * norm(U) * R) * R
    start = random(*shape)
    assert moved(run(start, lr=lr), W) <= 1e-7 * moved(start, W)


def test_the_scale_rule_has_no_effect():
    start = random(6, 10)
    one, other = (run(start, lr=0.1, scale=scale) for scale in ("original", "match_rms_adamw"))
    assert torch.equal(one, other)


def test_with_a_second_moment_too():
    """NorMuon's update (of the muon's norm), turned on the sphere."""
    start = random(6, 10)
    got = run(start, lr=0.1, second_moment="neuron")
    assert got.norm() == pytest.approx(start.norm()) and moved(got, run(start, lr=0.1)) > 1e-3


@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_two_hundred_steps_keep_the_norm(dtype, off):
    params = parameters(random(16, 32, dtype=dtype))
    before = params[0].double().norm().item()
    train(Muon(params, lr=0.02, orthogonalizer={"dtype": "fp32"}, **KEPT), params, steps=200)
    assert params[0].double().norm().item() == pytest.approx(before, rel=off)


@pytest.mark.parametrize("output", ["whole", "per_head"])
@pytest.mark.parametrize("qkv", ["fused", "split", "per_head"])
def test_every_matrix_of_a_model_keeps_its_norm(qkv, output):
    model = tiny_gpt2()
    members = [p for p in describe(model) if p.role == "hidden"]
    params, views = (
        [p.tensor for p in members],
        build_views(members, {"name": qkv, "output": output}),
    )
    optimizer = Muon([{"params": params, "views": views}], lr=0.1, **KEPT)
    before = [[block.clone() for block in gather(view, params)] for view in views]
    for _ in range(3):
        model(**batch(model)).loss.backward()
        optimizer.step()
        model.zero_grad()
    for view, blocks in zip(views, before, strict=True):
        for old, new in zip(blocks, gather(view, params), strict=True):
            assert moved(old, new) > 0.01 * old.norm()
            assert new.norm().item() == pytest.approx(old.norm().item(), rel=1e-5)


def test_gradients_of_zeros_move_nothing_and_nan_is_seen():
    p, q = parameters(random(4, 6, dtype=torch.float32), random(4, 6, seed=1, dtype=torch.float32))
    optimizer = Muon([p, q], lr=0.1, **KEPT)
    p.grad, q.grad = torch.zeros(4, 6), random(4, 6, dtype=torch.float32)
    before = p.detach().clone()
    optimizer.step()
    assert torch.allclose(p, before, rtol=1e-6)
    p.grad[0, 0] = float("nan")
    optimizer.step()
    assert p.isnan().any() and q.isfinite().all()


def test_weights_of_zeros_are_refused_because_they_would_stay_zero():
    params = [("up.weight", torch.nn.Parameter(torch.zeros(4, 6)))]
    optimizer = Muon(params, **KEPT)
    params[0][1].grad = torch.ones(4, 6)
    said = r"keep_norm=True: up.weight of shape \(4, 6\) is zero and would stay so"
    with pytest.raises(ValueError, match=said):
        optimizer.step()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"weight_decay": 0.1}, "keep_norm=True: needs weight_decay=0, not 0.1"),
        ({"shards": 2}, "keep_norm=True: needs shards=1, not 2"),
        ({"keep_norm": "yes"}, "keep_norm=yes: must be true or false"),
    ],
)
def test_what_does_not_go_with_a_kept_norm_is_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        Muon(parameters(random(4, 6)), **KEPT | wrong)

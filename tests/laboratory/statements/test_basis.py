"""The checks of bases: their numbers against closed forms and an explicit training loop."""

import numpy as np
import pytest
import torch

from bench.laboratory.statements import basis, updates
from bench.laboratory.statements.updates import deviation

FEW = 3


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(basis, "BASES", FEW)
    monkeypatch.setattr(updates, "STEPS", 4)


def sgd(params, lr=0.1, weight_decay=0.0):
    return torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=weight_decay)


def test_rotations_are_orthogonal():
    for size in (1, 7):
        P = basis.rotations(size, FEW, seed=0)
        assert torch.allclose(P @ P.mT, torch.eye(size, dtype=P.dtype).expand_as(P), atol=1e-12)
    assert not torch.allclose(P[0], P[1])


def test_the_first_step_of_adamw_is_the_sign_of_the_gradient(monkeypatch):
    """So the deviation between bases after one step is that of signs."""
    monkeypatch.setattr(updates, "STEPS", 1)
    (G,) = updates.gaussian_gradients(seed=0)
    bases = zip(*(basis.rotations(n, FEW, i) for i, n in enumerate(G.shape)), strict=True)
    expected = [deviation((P @ G @ Q).sign(), P @ G.sign() @ Q) for P, Q in bases]
    assert basis.in_bases(updates.adamw, seed=0) == pytest.approx(expected, rel=1e-5)


def test_only_what_depends_on_the_basis_deviates(monkeypatch):
    check = basis.basis_equivariance(seed=0)
    assert check.verdict == "confirmed" and 0.1 < check.low <= check.value <= check.high
    assert max(basis.in_bases(updates.muon, seed=1)) < 1e-12
    monkeypatch.setattr(updates, "adamw", sgd)
    assert basis.basis_equivariance(seed=0).verdict == "refuted"


def test_one_element_wise_optimizer_is_independent_of_the_basis(monkeypatch):
    check = basis.elementwise_basis(seed=0)
    assert check.verdict == "depends" and check.value < check.n == 10
    assert "SGD" in check.condition.partition("independent of it: ")[2]
    monkeypatch.setattr(basis, "ELEMENTWISE", {"sgd": sgd})
    assert basis.elementwise_basis(seed=0).verdict == "refuted"
    monkeypatch.setattr(basis, "ELEMENTWISE", {"adamw": updates.adamw})
    assert basis.elementwise_basis(seed=0).verdict == "confirmed"


def test_what_torch_calls_element_wise_is():
    """Entries that trade places before the steps have traded them after."""
    gradients = updates.gaussian_gradients(seed=0)
    order = torch.randperm(gradients[0].numel())

    def moved(X):
        return X.flatten(-2)[..., order].view_as(X)

    for name, make in basis.ELEMENTWISE.items():
        before, after = updates.trained(make, moved(gradients)), updates.trained(make, gradients)
        assert torch.equal(before, moved(after)), name


def test_the_trace_stays_and_no_update_knows_of_the_diagonal():
    check = basis.trace_invariance(seed=0)
    assert check.verdict == "depends" and check.value < 1e-10


@pytest.mark.parametrize("make", [updates.adamw, updates.muon])
def test_final_losses_are_those_of_a_plain_training_loop(make, monkeypatch):
    monkeypatch.setattr(basis, "TRAINING", 5)
    problem = basis.least_squares(FEW, seed=0)
    found = basis.final_losses(problem, make, lr=0.1)
    for loss, P, Q in zip(found, problem.P_knn, problem.Q_kmm, strict=True):
        W = torch.zeros_like(problem.W_nm, requires_grad=True)
        optimizer = make([W], lr=0.1, weight_decay=0.0)
        for step, (X, Y) in enumerate(zip(problem.X_tmb, problem.Y_tnb, strict=True)):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 5)
            optimizer.zero_grad()
            ((W @ Q.T @ X - P @ Y) ** 2).sum().div(2 * X.shape[1]).backward()
            optimizer.step()
        D = W.detach() - P @ problem.W_nm @ Q
        C = Q.T @ torch.diag(problem.variances_m) @ Q
        assert loss == pytest.approx(float(torch.trace(D @ C @ D.T)) / 2, rel=1e-9)


def test_the_rotated_problem_is_decided_by_spreads(monkeypatch):
    monkeypatch.setattr(basis, "RATES", (0.1,))
    monkeypatch.setattr(basis, "TRAINING", 60)
    problem = basis.least_squares(FEW, seed=0)
    check = basis.rotated_problem(problem)
    assert check.verdict == "confirmed" and check.n == FEW
    losses = basis.final_losses(problem, updates.adamw, lr=0.1)
    assert check.value == pytest.approx(np.mean(losses[1:]) / losses[0])
    monkeypatch.setattr(updates, "adamw", sgd)
    assert basis.rotated_problem(problem).verdict == "refuted"

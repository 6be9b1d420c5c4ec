"""Other people's optimizers, where they are installed: the common suite, recipe and checkpoints."""

import importlib
import math
import tomllib
from types import SimpleNamespace

import pytest
import torch

from bench.data import batches
from bench.measuring.meter import copies, update_rms
from bench.processes.world import ALONE
from bench.settings.errors import UserError
from optimizers import routing
from optimizers.routing import route
from optimizers.state import momentum
from tests.helpers.commands import ROOT, settle
from tests.helpers.runs import same_result, stop_at
from tests.helpers.suite import (  # noqa: F401 - run here with the fixtures below
    test_a_schedule_multiplies_the_base_rates,
    test_the_block_is_not_changed_so_that_it_can_be_used_again,
    test_the_partition_is_exact,
    test_the_rates_are_the_rules_times_the_scales,
    test_the_same_start_gives_the_same_bits,
    test_the_table_tells_what_the_optimizers_hold,
    test_twenty_steps_learn_and_stay_finite,
    test_zero_grad_forgets_the_gradients,
)
from tests.helpers.zoo import (
    ALL,
    PEERS,
    distance,
    package,
    settings,
    tiny_gpt2,
    weights,
)
from tests.helpers.zoo import train as learn

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def ready(name, monkeypatch):
    """Skip what cannot run here; spare heavyball the minute that it would compile."""
    module = pytest.importorskip(package(name))
    if module.__name__ == "gram_newton_schulz" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    if module.__name__ == "heavyball":
        monkeypatch.setattr("heavyball.utils.compile_mode", None)


@pytest.fixture(params=PEERS)
def optimizer(request, monkeypatch):
    ready(request.param, monkeypatch)
    return request.param


@pytest.mark.more
def test_a_run_that_failed_goes_on_to_the_same_end(optimizer, train, tmp_path, monkeypatch):
    override = f"optimizer={optimizer}"
    _, whole, _ = train(override, results=tmp_path / "whole")
    assert whole["status"] == "finished" and whole["overhead"]["n"] == 2
    assert whole["optimizer_state_bytes"]["predicted"] is None
    assert whole["optimizer_state_bytes"]["total"] > 0
    stop_at(monkeypatch, 5, RuntimeError("the machine is on fire"))
    assert train(override)[0]["how"] == "failed"
    outcome, resumed, said = train(override)
    assert outcome["how"] == "finished" and any("from step 4" in line for line in said)
    assert same_result(whole, resumed)


def test_weights_decay_as_much_as_in_the_other_arms(optimizer):
    """Where every gradient is zero a step is the decay alone: by 2e-3 x 0.1, or not at all."""
    model = tiny_gpt2()
    routing = route(model, settings(optimizer))
    for _ in range(2):  # the first step of some only collects statistics
        before = copies(routing.roles)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        routing.step()
    for role, tensors in routing.roles.items():
        for p, old in zip(tensors, before[role], strict=True):
            decay = 0.0 if role in ("vector", "position") else 2e-4
            decay *= part_of_the_decay(optimizer, role, p)
            assert torch.allclose(p, (1 - decay) * old, rtol=1e-6, atol=0)


def part_of_the_decay(name, role, p):
    """How much of the usual decay the second step along no gradient has, for this tensor."""
    if name == "optimuon" and role == "hidden":
        return 0.2 * 0.2 * math.sqrt(max(p.shape))  # 0.02, times the update's scale
    if name == "hyperball_adamw" and role == "hidden":
        return 0.0  # its weights keep their norm
    if name == "prodigy":
        return 0.0  # it has found no rate yet
    if name == "schedule_free_adamw":
        return 1 - 0.9 / 2  # of the weights at which gradients are taken; the others decay whole
    if name == "splus":  # 0.1 times the rate as its shape scales it, for 2e-3
        return 0.1 * (2 / sum(p.shape) if p.ndim == 2 else 1e-3) / 2e-3
    return 1.0


@pytest.mark.parametrize("name", ["pytorch_optimizer_muon", "optimuon", "gram_newton_schulz"])
def test_a_muons_update_has_the_rms_of_the_recipe(name, monkeypatch):
    ready(name, monkeypatch)
    model = tiny_gpt2()
    routing = route(model, settings(name))
    before = copies(routing.roles)
    learn(model, routing, 1)
    assert update_rms(before, routing.roles, ALONE)["hidden"] == pytest.approx(0.2 * 2e-3, rel=0.2)


@pytest.mark.parametrize(
    ("name", "same_iteration"),
    [
        ("pytorch_optimizer_muon", {}),
        ("optimuon", {"ns_coefficients": [3.4445, -4.775, 2.0315], "ns_norm_scale": 1.0}),
    ],
)
def test_a_muon_equals_torchs_where_the_iteration_is_the_same(name, same_iteration, monkeypatch):
    ready(name, monkeypatch)
    start, theirs, ours = weights(tiny_gpt2()), tiny_gpt2(), tiny_gpt2()
    changes = {f"optimizer__roles__hidden__{key}": v for key, v in same_iteration.items()}
    losses = learn(ours, route(ours, settings(name, **changes)), 10)
    assert losses == pytest.approx(
        learn(theirs, route(theirs, settings("torch_muon")), 10), rel=0.01
    )
    assert distance(theirs, start, ours) < 0.05


def test_a_settings_file_names_a_dtype_as_torch_does(monkeypatch):
    ready("optimuon", monkeypatch)
    model = tiny_gpt2()
    changes = {"optimizer__roles__hidden__momentum_dtype": "torch.bfloat16"}
    routing = route(model, settings("optimuon", **changes))
    learn(model, routing, 1)
    states = routing.optimizers[0].state.values()
    assert {t.dtype for one in states for t in one.values() if torch.is_tensor(t)} == {
        torch.bfloat16
    }


def test_the_field_is_wide():
    packages = {package(name) or "ours or torch's" for name in ALL}
    assert len(ALL) >= 28 and len(packages) >= 5


def test_ademamix_warms_up_over_the_whole_run():
    rule = settle("optimizer=ademamix", "train.steps=70").optimizer["roles"]["default"]
    assert rule["t_alpha_beta3"] == 70
    timed = settle("optimizer=ademamix", "train.steps=null", "train.time_limit=9").optimizer
    assert timed["roles"]["default"]["t_alpha_beta3"] is None


@pytest.mark.parametrize("name", ["lion", "scion", "splus", "pytorch_optimizer_adamuon", "sgd"])
def test_the_first_moment_is_found_whatever_it_is_called(name, monkeypatch):
    if package(name):
        ready(name, monkeypatch)
    model = tiny_gpt2()
    routing = route(model, settings(name))
    learn(model, routing, 1)
    found = momentum(routing.optimizers, model)
    shapes = {key: tensor.shape for key, tensor in found.items()}
    assert shapes == {key: p.shape for key, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("target", "needs"),
    [
        ("torch.optim.LBFGS", "a closure"),
        ("pytorch_optimizer.AdamMini", "its model"),
        ("pytorch_optimizer.Lookahead", "its optimizer"),
        ("pytorch_optimizer.SophiaH", "the graph of the gradients"),
    ],
)
def test_what_needs_more_than_gradients_is_refused_before_any_work(
    target, needs, train, monkeypatch
):
    pytest.importorskip(target.partition(".")[0])
    monkeypatch.setattr(batches, "load", lambda *_, **__: pytest.fail("data was loaded"))
    with pytest.raises(UserError) as caught:
        train(f"optimizer.roles.vector._target_={target}")
    assert str(caught.value) == (
        f"optimizer.roles.vector._target_={target}: needs {needs}, which no loop here gives; must "
        "be a class as torch.optim.AdamW"
    )


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_that_is_not_installed_is_one_sentence_before_any_work(name, train, monkeypatch):
    def importing(module):
        if module.partition(".")[0] == package(name):
            raise ModuleNotFoundError(f"No module named '{package(name)}'", name=package(name))
        return importlib.import_module(module)

    monkeypatch.setattr(routing, "importlib", SimpleNamespace(import_module=importing))
    monkeypatch.setattr(batches, "load", lambda *_, **__: pytest.fail("data was loaded"))
    with pytest.raises(UserError) as caught:
        train(f"optimizer={name}")
    own = {"gram_newton_schulz": "peers-cuda", "timm": "peers-timm"}
    extra = own.get(package(name), "peers")
    distribution = package(name).replace("_", "-")
    assert f"{package(name)}." in str(caught.value)
    assert str(caught.value).endswith(
        f": the package {distribution} is not installed; pip install -e '.[{extra}]'"
    )
    assert any(line.startswith(distribution) for line in EXTRAS[extra])
    assert f"\n{distribution}==" in (ROOT / "constraints.txt").read_text()

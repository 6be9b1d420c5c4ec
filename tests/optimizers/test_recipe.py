"""`hybrid(model)`: the recipe's defaults, what may differ, and what it says it could not read."""

import json
import shutil
import subprocess
import sys
import warnings
from importlib import metadata

import pytest
import torch
from torch import nn

from optimizers import hybrid
from optimizers.orthogonalize import Orthogonalizer
from optimizers.recipe import recipe
from tests.helpers.commands import ROOT
from tests.helpers.zoo import HEADS, SIZE, WIDTH, settings, tiny_gpt2, tiny_llama, train


def rows(optimizer, end):
    return [row for row in optimizer.table if row["name"].endswith(end)]


def test_its_defaults_are_those_of_the_suites_hybrid():
    want = settings("hybrid")["roles"]
    assert Orthogonalizer(**want["hidden"].pop("orthogonalizer")) == Orthogonalizer()
    want["hidden"]["qkv"] = want["hidden"]["qkv"]["name"]
    found = recipe(2e-3, 0.1, "split", {})
    for rule in (*want.values(), *found.values()):
        rule["betas"] = list(rule.get("betas", []))
    assert found == want


def test_it_learns_and_says_nothing_of_a_model_it_reads_whole(build):
    model = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = hybrid(model)
    losses = train(model, optimizer, 10)
    assert losses[-1] < losses[0]
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
        id(p) for p in model.parameters()
    }
    assert all("initial_lr" not in group for group in optimizer.param_groups)  # a scheduler's


def test_the_rate_and_the_decay_are_of_all_roles_but_vectors_and_positions_never_decay():
    optimizer = hybrid(tiny_gpt2(), 1e-4, weight_decay=0.3)
    found = {g["role"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    still = {"vector": (1e-4, 0.0), "position": (1e-4, 0.0)}
    assert found == {"hidden": (1e-4, 0.3), "embedding": (1e-4, 0.3)} | still


@pytest.mark.parametrize(
    ("qkv", "matrices"),
    [
        ("fused", [[1, 3 * WIDTH, WIDTH]]),
        ("split", [[3, WIDTH, WIDTH]]),
        ("per_head", [[3 * HEADS, SIZE, WIDTH]]),
        ({}, [[3, WIDTH, WIDTH]]),
        ({"output": "per_head"}, [[3, WIDTH, WIDTH]]),
        ({"name": "head_groups", "heads_per_group": 2}, [[3 * HEADS // 2, 2 * SIZE, WIDTH]]),
    ],
)
def test_qkv_is_a_name_or_a_mapping(qkv, matrices):
    optimizer = hybrid(tiny_gpt2(), qkv=qkv)
    assert all(row["matrices"] == matrices for row in rows(optimizer, "c_attn.weight"))
    cut = isinstance(qkv, dict) and "output" in qkv
    want = [[HEADS, WIDTH, SIZE]] if cut else [[1, WIDTH, WIDTH]]
    assert all(row["matrices"] == want for row in rows(optimizer, "attn.c_proj.weight"))


def test_a_role_may_differ_in_a_setting_or_have_another_optimizer():
    model = tiny_llama()
    roles = {
        "hidden": {"momentum": 0.9, "second_moment": "neuron"},
        "default": {"betas": (0.8, 0.9)},
        "head": {"lr": 1e-4},
        "embedding": {"_target_": torch.optim.SGD, "lr": 0.1, "momentum": 0.9},
    }
    groups = {g["role"]: g for g in hybrid(model, roles=roles).param_groups}
    assert groups["hidden"]["momentum"] == 0.9
    assert groups["hidden"]["second_moment"] == "neuron"
    assert groups["hidden"]["nesterov"] and groups["hidden"]["weight_decay"] == 0.1
    assert groups["vector"]["betas"] == groups["head"]["betas"] == (0.8, 0.9)
    assert groups["vector"]["weight_decay"] == 0.0
    assert groups["head"]["lr"] == 1e-4 and groups["vector"]["lr"] == 2e-3
    assert groups["embedding"]["lr"] == 0.1 and "betas" not in groups["embedding"]


def test_another_default_is_vectors_and_positions_too():
    optimizer = hybrid(tiny_gpt2(), roles={"default": {"_target_": "torch.optim.SGD", "lr": 0.1}})
    assert {row["optimizer"] for row in optimizer.table} == {"Muon", "SGD"}
    decays = {g["role"]: g["weight_decay"] for g in optimizer.param_groups}
    assert decays["vector"] == decays["position"] == 0.0


def test_an_optimizer_without_a_rate_begins_with_its_own():
    optimizer = hybrid(tiny_gpt2(), roles={"vector": {"_target_": torch.optim.Adagrad}})
    assert {g["lr"] for g in optimizer.param_groups if g["role"] == "vector"} == {0.01}


def test_frozen_weights_are_left_out_of_groups_and_state():
    model = tiny_gpt2()
    model.transformer.h[0].requires_grad_(False)
    frozen = {id(p) for p in model.transformer.h[0].parameters()}
    before = [p.clone() for p in model.transformer.h[0].parameters()]
    optimizer = hybrid(model)
    train(model, optimizer, 2)
    assert frozen.isdisjoint(id(p) for g in optimizer.param_groups for p in g["params"])
    assert frozen.isdisjoint(map(id, optimizer.state))
    assert all(map(torch.equal, before, model.transformer.h[0].parameters()))


# one's own model -------------------------------------------------------------------------------


class Own(nn.Module):
    """A model with a calling form of its own."""

    def __init__(self):
        super().__init__()
        self.inner = tiny_gpt2()

    def forward(self, idx):
        return self.inner(idx).logits


def test_a_call_of_ones_own_shows_the_attention():
    model = Own()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = hybrid(
            model, qkv="per_head", forward=lambda: model(torch.zeros(1, 2, dtype=torch.long))
        )
    matrices = [[3 * HEADS, SIZE, WIDTH]]
    assert [row["matrices"] for row in rows(optimizer, "c_attn.weight")] == [matrices] * 2


def test_without_it_what_stays_whole_is_said():
    with pytest.warns(UserWarning) as caught:
        optimizer = hybrid(Own())
    first, second = (str(one.message) for one in caught)
    assert first.startswith("how Own is called is not known (forward=)")
    assert "inner.transformer.h.0.attn.c_attn.weight" in second and "and 1 more" in second
    (one, _) = rows(optimizer, "c_attn.weight")
    assert one["matrices"] == [[1, 3 * WIDTH, WIDTH]]
    assert "no softmax(q kᵀ) v could be read in GPT2Attention" in one["reason"]


def test_a_call_that_fails_is_said_and_not_fatal():
    model = Own()
    with pytest.warns(UserWarning, match="attention could not be probed.*no such input"):
        hybrid(model, forward=lambda: (_ for _ in ()).throw(RuntimeError("no such input")))


def test_a_stack_of_torchs_own_layers_needs_no_call():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hybrid(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))


def test_parameters_without_a_known_structure_are_named_or_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.experts = nn.Parameter(torch.randn(2, 3, 4))
    with pytest.warns(UserWarning, match="not read in full: experts; .*table"):
        hybrid(model)
    with pytest.raises(ValueError, match=r"strict=true: .* experts"):
        hybrid(model, strict=True)


# what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"qkv": "heads"}, "qkv=heads: .*per_head"),
        ({"qkv": 3}, "hidden.qkv=3: .*split"),
        ({"qkv": "head_groups"}, "heads_per_group=None: must be a whole number"),
        ({"lr": "1e-3"}, "lr: must be a number; .*1e-3"),
        ({"roles": {"hed": {}}}, "roles.hed: no such role; .*head"),
        ({"roles": {"head": 1e-3}}, r"roles: head=0.001: must be settings"),
        ({"roles": {"vector": {"betas": 3}}}, r"roles \(vector\): torch.optim.AdamW: "),
        ({"roles": {"vector": {"_target_": 3}}}, "_target_=3: not a torch.optim.Optimizer"),
        ({"roles": {"vector": {"_target_": "nowhere.Adam"}}}, "No module named 'nowhere'"),
        ({"structure": {"nothing*": "head"}}, "matches no trainable parameter"),
    ],
)
def test_a_mistake_is_named_in_a_line_or_two(changes, said):
    with pytest.raises(ValueError, match=said) as caught:
        hybrid(tiny_gpt2(), **changes)
    assert len(str(caught.value).splitlines()) <= 2


def test_what_is_no_model_or_has_nothing_to_train():
    with pytest.raises(ValueError, match=r"takes the model .* not a generator"):
        hybrid(tiny_gpt2().parameters())
    with pytest.raises(ValueError, match="no trainable parameter"):
        hybrid(tiny_gpt2().requires_grad_(False))


# the folder alone ------------------------------------------------------------------------------


ALONE = """
import json, sys
sys.path.insert(0, "")
blocked = set(json.loads(sys.argv[1]))

class Without:
    # a finder that does not find the blocked packages
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in blocked
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
import torch
import optimizers
assert optimizers.__file__.startswith(sys.argv[2]), optimizers.__file__
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer = optimizers.hybrid(model)
model(torch.ones(3, 4)).square().sum().backward()
before = model[0].weight.detach().clone()
optimizer.step()
assert not torch.equal(before, model[0].weight)
try:
    optimizers.hybrid(model, roles={"vector": {"_target_": "heavyball.SOAP"}})
except ValueError as error:
    print(error)
assert blocked.isdisjoint(name.partition(".")[0] for name in sys.modules)
"""

# torch, and what it requires.
OF_TORCH = {"torch", "torchgen", "functorch", "setuptools", "_distutils_hack", "typing_extensions"}
OF_TORCH |= {"sympy", "isympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec"}


def test_the_folder_copied_alone_runs_with_torch_only(tmp_path):
    blocked = sorted(metadata.packages_distributions().keys() - OF_TORCH - {"optimizers"})
    assert {"transformers", "numpy", "hydra"} <= set(blocked)
    shutil.copytree(ROOT / "optimizers", tmp_path / "optimizers")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE, json.dumps(blocked), str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = "optimizer _target_=heavyball.SOAP: No module named 'heavyball'; must be a class"
    assert done.stdout == f"{said} as torch.optim.AdamW\n"


def test_a_name_that_is_not_there_is_named():
    with pytest.raises(ImportError, match="cannot import name 'hybird'"):
        from optimizers import hybird  # noqa: F401

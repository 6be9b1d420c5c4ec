"""Momenta as matrices: what kind of layer each is of, and files without a run beside them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.laboratory import matrices, momentum
from bench.settings.errors import UserError
from tests.helpers.commands import ROOT
from tests.helpers.laboratory import settle

SHIPPED = ROOT / "results" / "ortho" / "momenta"


def kinds_of(tmp_path) -> list[str]:
    (file,) = momentum.files(None, str(tmp_path))
    return [one.kind for one in momentum.members(file, ["hidden"], [0])]


@pytest.mark.more
@pytest.mark.parametrize(
    ("qkv", "projections"),
    [
        ("split", ["q", "k", "v"]),
        ("fused", ["qkv"]),
        ("per_head", ["q"] * 4 + ["k"] * 4 + ["v"] * 4),
    ],
)
@pytest.mark.parametrize("model", ["gpt2_nano", "vit_nano"])
def test_every_matrix_has_its_kind(train, tmp_path, model, qkv, projections):
    """GPT-2 has q, k and v in one tensor, ViT in three, and both are read in all ways."""
    small = {
        "gpt2_nano": [],
        "vit_nano": ["model=vit_nano", "model.layers=1", "model.heads=4", "model.width=32"],
    }
    train(*small[model], f"qkv={qkv}", "train.save_momentum_every=6")
    found = kinds_of(tmp_path)
    assert sorted(found) == sorted([*projections, "attention output", "mlp in", "mlp out"])


def test_shared_heads_have_fewer_matrices():
    said = ["Linear; q, k, v of 4 heads, read by probing"]
    assert momentum.kinds(said, [(8, 32)] * 5) == ["qkv"] * 5
    assert momentum.kinds(["Linear"], [(8, 8)]) == ["square"]


def test_a_sample_needs_no_run_beside_it(train, tmp_path):
    train("train.save_momentum_every=6")
    (file,) = tmp_path.glob("runs/*/momentum/6.safetensors")
    name = "transformer.h.1.attn.c_attn.weight"
    with momentum.opened(file) as saved:
        views = momentum.views(saved)
    row = {"name": name, "role": "hidden", "reason": "q, k, v of 2 heads"}
    sample = tmp_path / "sample" / "tiny-6.safetensors"
    sample.parent.mkdir()
    metadata = {"routing": json.dumps([row]), "views": json.dumps(views)}
    save_file({name: load_file(file)[name]}, sample, metadata)
    asked = settle("sources=momentum", f"momentum='{sample.parent}'", f"results_dir={tmp_path}")
    (found,) = matrices.problems(asked)
    assert found.source == "momentum_tiny-6_hidden_layer1" and found.shape == (32, 32)
    whole = [
        row
        for problem in matrices.problems(settle("sources=momentum", f"results_dir={tmp_path}"))
        for row in problem.spectra
        if problem.details["layer"] == 1 and problem.shape == (32, 32)
    ]
    assert all(any(np.allclose(row, other) for other in whole) for row in found.spectra)


def test_what_ships_is_real_and_small():
    """Both models, every kind of layer, fp16: enough to measure real spectra without training."""
    files = momentum.files(str(SHIPPED), "nowhere")
    assert {file.stem.split("-")[0] for file in files} == {"gpt2_nano", "vit_nano"}
    assert sum(file.stat().st_size for file in files) < 2_000_000
    found = {file.stem.split("-")[0]: momentum.members(file, ["hidden"], None) for file in files}
    kinds = {name: {one.kind for one in members} for name, members in found.items()}
    everything = {"q", "k", "v", "attention output", "mlp in", "mlp out"}
    assert kinds["vit_nano"] == everything and kinds["gpt2_nano"] == everything - {"mlp out"}
    for one in found["vit_nano"]:
        s = torch.linalg.svdvals(one.matrix.double())
        assert s[0] > 10 * s.median()  # no Gaussian matrix is so steep


def test_a_folder_without_any_is_a_mistake_of_one_line(tmp_path):
    with pytest.raises(UserError, match=r"results/ortho/momenta"):
        momentum.files(None, str(tmp_path))
    with pytest.raises(UserError, match=r"momentum=.*there is no momentum"):
        momentum.files(str(tmp_path), str(tmp_path))

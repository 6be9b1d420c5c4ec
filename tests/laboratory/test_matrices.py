"""Where the laboratory's matrices come from, momentum of a real run above all."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.laboratory import matrices
from bench.settings.errors import UserError
from tests.helpers.laboratory import settle


def of_run(tmp_path, *overrides):
    return list(
        matrices.problems(settle("sources=momentum", f"results_dir={tmp_path}", *overrides))
    )


@pytest.mark.parametrize("qkv", ["fused", "per_head"])
def test_momentum_is_read_as_muon_saw_it(train, tmp_path, qkv):
    _, record, _ = train(f"qkv={qkv}", "train.save_momentum_every=6")
    found = of_run(tmp_path)
    rows = [r for r in record["routing"] if r["role"] == "hidden"]
    expected = {(*shape,): 0 for r in rows for _, *shape in r["matrices"]}
    for row in rows:
        for count, *shape in row["matrices"]:
            expected[(*shape,)] += count
    counted = dict.fromkeys(expected, 0)
    for problem in found:
        counted[problem.shape] += len(problem.spectra)
    assert counted == expected
    assert {p.details["layer"] for p in found} == {0, 1}
    assert all(np.allclose((p.spectra**2).sum(axis=1), 1) for p in found)


def test_blocks_are_those_of_the_parameter(train, tmp_path):
    """GPT-2's Conv1D is stored (in, out), so Q, K and V lie beside each other in it."""
    train("qkv=split", "train.save_momentum_every=3")
    (file,) = tmp_path.glob("runs/*/momentum/6.safetensors")
    name = "transformer.h.1.attn.c_attn.weight"
    stored = load_file(file)[name].double()
    blocks = stored.reshape(32, 3, 32).permute(1, 2, 0)
    want = torch.linalg.svdvals(blocks / torch.linalg.vector_norm(blocks, dim=(1, 2), keepdim=True))
    found = of_run(tmp_path, "layers=1")
    (square,) = (p for p in found if p.shape == (32, 32))
    assert name in square.details["parameters"] and square.source == "momentum6_hidden_layer1"
    for row in want.numpy():
        assert any(np.allclose(row, other, atol=1e-12) for other in square.spectra)
    X, Q, s = square.form()
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    assert torch.allclose(Q, U @ Vh, atol=1e-6) and np.allclose(s, square.spectra)


def test_the_file_can_be_named_and_other_roles_asked_for(train, tmp_path):
    train("train.save_momentum_every=3")
    (file,) = tmp_path.glob("runs/*/momentum/3.safetensors")
    (found,) = of_run(tmp_path, f"momentum='{file}'", "roles=embedding")
    assert found.source == "momentum3_embedding" and found.details["layer"] is None
    (folder,) = tmp_path.glob("runs/*")
    assert of_run(tmp_path, f"momentum='{folder}'")[0].source.startswith("momentum6_hidden")


def test_what_is_missing_is_said_before_work(train, tmp_path):
    with pytest.raises(UserError, match=r"save_momentum_every=N first"):
        of_run(tmp_path)
    with pytest.raises(UserError, match=r"momentum=/nowhere"):
        of_run(tmp_path, "momentum=/nowhere")
    train("train.save_momentum_every=6")
    with pytest.raises(UserError, match=r"layers=\[7\].*layers \[0, 1\]"):
        of_run(tmp_path, "layers=7")
    with pytest.raises(UserError, match=r"roles=conv.*hidden"):
        of_run(tmp_path, "roles=conv")
    (file,) = tmp_path.glob("runs/*/momentum/*.safetensors")
    zeros = {name: torch.zeros_like(t) for name, t in load_file(file).items()}
    save_file(zeros, file)
    with pytest.raises(UserError, match="zero or not finite"):
        of_run(tmp_path)
    (file.parent.parent / "routing.json").unlink()
    with pytest.raises(UserError, match=r"routing\.json is missing"):
        of_run(tmp_path)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match="cannot be read"):
        of_run(tmp_path)


def test_large_shapes_have_spectra_and_no_matrices():
    settings = settle("shapes=[1025x1025,2x100000000]", "samples=2")
    for problem in matrices.problems(settings):
        assert problem.form is None and problem.spectra.shape == (2, min(problem.shape))

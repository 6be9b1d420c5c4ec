"""Layouts read from the model itself, on the layouts that real models have."""

import pytest
import torch
import transformers
from torch import nn

from optimizers.probe import one_token, probe
from optimizers.structure import describe, runs

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def causal(kind: str, **more):
    config = getattr(transformers, f"{kind}Config")(**SIZES, **SPECIAL, **more)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


class TimmAttention(nn.Module):
    """One `qkv` linear, reshaped to (3, heads, width), as timm's vision transformers do."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.proj = nn.Linear(32, 32)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(1, -1, 3, 4, 8).permute(2, 0, 3, 1, 4)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(1, -1, 32))


def blocks(start: int, count: int, step: int = 8) -> list[tuple[int, int]]:
    return [(start + i * step, start + i * step + 8) for i in range(count)]


def read(model, forward=None):
    """Of the first attention: {(weight's last name, part): [rows of each head]}, and outputs."""
    names = {id(p): n for n, p in model.named_parameters()}
    call = probe(model, forward or one_token(model))[0]
    found: dict[tuple[str, str], list] = {}
    for weight, heads in call.rows.items():
        for (part, _), rows in sorted(heads.items()):
            (run,) = runs(rows)
            found.setdefault((names[weight].split(".")[-2], part), []).append(run)
    outputs = {names[w]: [list(runs(c)) for c in cols.values()] for w, cols in call.outputs.items()}
    return found, outputs


CASES = {
    "llama": (
        lambda: causal("Llama", num_key_value_heads=2),
        {
            ("q_proj", "q"): blocks(0, 4),
            ("k_proj", "k"): blocks(0, 2),
            ("v_proj", "v"): blocks(0, 2),
        },
    ),
    "qwen3, with q and k normalised": (
        lambda: causal("Qwen3", num_key_value_heads=2, head_dim=8),
        {
            ("q_proj", "q"): blocks(0, 4),
            ("k_proj", "k"): blocks(0, 2),
            ("v_proj", "v"): blocks(0, 2),
        },
    ),
    "phi3, fused and uneven": (
        lambda: causal("Phi3", num_key_value_heads=2),
        {
            ("qkv_proj", "q"): blocks(0, 4),
            ("qkv_proj", "k"): blocks(32, 2),
            ("qkv_proj", "v"): blocks(48, 2),
        },
    ),
    "neox, interleaved by head": (
        lambda: causal("GPTNeoX"),
        {
            ("query_key_value", "q"): blocks(0, 4, 24),
            ("query_key_value", "k"): blocks(8, 4, 24),
            ("query_key_value", "v"): blocks(16, 4, 24),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rows_of_every_head_are_read(name):
    build, expected = CASES[name]
    found, outputs = read(build())
    assert found == expected
    (columns,) = outputs.values()
    assert columns == [[block] for block in blocks(0, 4)]


def test_a_timm_style_qkv_linear_and_torchs_own_attention():
    x = torch.zeros(1, 1, 32)
    thirds = [blocks(0, 4), blocks(32, 4), blocks(64, 4)]
    model = nn.ModuleDict({"attention": TimmAttention()})
    found, outputs = read(model, lambda: model["attention"](x))
    assert [found["qkv", part] for part in "qkv"] == thirds
    assert list(outputs) == ["attention.proj.weight"]
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(32, 4, batch_first=True)})
    found, outputs = read(model, lambda: model["attention"](x, x, x))
    assert [found["attention", part] for part in "qkv"] == thirds
    assert list(outputs) == ["attention.out_proj.weight"]


def test_probing_leaves_weights_random_state_and_mode_as_they_are():
    model = causal("Llama").train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    state = torch.get_rng_state()
    describe(model)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_model_without_attention_has_none():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    assert probe(model, lambda: model(torch.zeros(1, 4))) == []
    assert one_token(model) is None


def test_a_model_that_cannot_be_probed_is_said_and_kept_whole():
    model = causal("Llama")
    model.forward = None
    with pytest.warns(UserWarning, match="could not be probed"):
        parameters = describe(model)
    assert not any(p.attention for p in parameters)

"""Layouts read from the model itself, on the layouts that real models have."""

import pytest
import torch
import transformers
from torch import nn

from optimizers.structure import describe
from optimizers.structure.attention import runs
from optimizers.structure.inputs import smallest_input
from optimizers.structure.probe import probe

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def causal(kind: str, attn_implementation: str = "sdpa", **more):
    config = getattr(transformers, f"{kind}Config")(**SIZES, **SPECIAL, **more)
    model = getattr(transformers, f"{kind}ForCausalLM")
    return model._from_config(config, attn_implementation=attn_implementation)


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
    call = probe(model, forward or smallest_input(model)).attentions[0]
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


def eager_scores(q, k, v):
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v


def einsum_scores(q, k, v):
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k)
    return torch.einsum("bhqk,bhkd->bhqd", nn.functional.softmax(scores, dim=-1), v)


def bmm_scores(q, k, v):
    """Batch and heads as one dimension, q scaled before it meets k."""
    shape = q.shape
    q, k, v = ((x.reshape(-1, *x.shape[-2:])) for x in (q * shape[-1] ** -0.5, k, v))
    return torch.bmm(torch.softmax(torch.bmm(q, k.mT), dim=-1), v).view(shape)


class ByHand(nn.Module):
    """A language model of one attention whose weights are bare parameters."""

    def __init__(self, attend):
        super().__init__()
        self.attend = attend
        self.tokens = nn.Embedding(64, 32)
        self.w_qkv = nn.Parameter(torch.randn(32, 96))  # (in, out), by @
        self.w_out = nn.Parameter(torch.randn(32, 32))  # (out, in), by F.linear
        self.head = nn.Linear(32, 64)

    def forward(self, input_ids, labels):
        x = nn.functional.layer_norm(self.tokens(input_ids), (32,))
        heads = (x @ self.w_qkv).view(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
        y = self.attend(*heads).transpose(1, 2).reshape(x.shape)
        return self.head(x + nn.functional.linear(y, self.w_out))


@pytest.mark.parametrize("attend", [eager_scores, einsum_scores, bmm_scores])
def test_attention_written_by_hand_is_read(attend):
    found = {p.name: p for p in describe(ByHand(attend))}
    qkv, out = found["w_qkv"], found["w_out"]
    assert (qkv.role, qkv.layout, out.layout) == ("hidden", "transposed", "matrix")
    expected = [
        (part, head, i * 32 + head * 8, i * 32 + head * 8 + 8)
        for i, part in enumerate("qkv")
        for head in range(4)
    ]
    assert sorted(qkv.slices, key=lambda s: s.start) == expected
    assert out.output_heads == 4 and "by probing" in qkv.reason


def test_products_without_a_softmax_between_them_are_not_taken_for_attention():
    model = ByHand(lambda q, k, v: (q @ k.mT) @ v)
    assert not any(p.attention or p.output_heads for p in describe(model))


def test_a_sum_of_two_projections_is_taken_for_neither():
    """An adapter's output lies on its base's; either's rows would be read off wrongly."""

    class Summed(ByHand):
        def __init__(self):
            super().__init__(eager_scores)
            self.more, self.other = nn.Linear(32, 96), nn.Linear(32, 200)

        def forward(self, input_ids):
            x = self.tokens(input_ids)
            y = x @ self.w_qkv + self.more(x)
            self.other(x)
            heads = y.view(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
            return self.attend(*heads)

    assert not any(p.slices or " heads" in p.reason for p in describe(Summed()))


def test_a_weight_that_is_read_in_slices_gives_the_rows_of_each_slice():
    class Sliced(ByHand):
        def forward(self, input_ids):
            x = self.tokens(input_ids)
            parts = [x @ self.w_qkv[:, i * 32 : (i + 1) * 32] for i in range(3)]
            return self.attend(*(p.view(*x.shape[:2], 4, 8).transpose(1, 2) for p in parts))

    qkv = {p.name: p for p in describe(Sliced(eager_scores))}["w_qkv"]
    assert [(s.start, s.stop) for s in qkv.slices if s.part == "v"] == blocks(64, 4)


@pytest.mark.parametrize("kind", ["Llama", "Phi3", "GPTNeoX"])
def test_eager_attention_is_read_like_the_fused_one(kind):
    found = []
    for implementation in ("sdpa", "eager"):
        model = causal(kind, attn_implementation=implementation)
        assert model.config._attn_implementation == implementation
        found.append([(p.name, p.reason, p.slices, p.output_heads) for p in describe(model)])
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["Llama", "GPTNeoX"])
def test_a_model_in_another_precision_is_read_alike(kind, dtype):
    model = causal(kind)
    plain = [(p.name, p.reason, p.slices, p.output_heads) for p in describe(model)]
    other = [(p.name, p.reason, p.slices, p.output_heads) for p in describe(model.to(dtype))]
    assert other == plain


def test_torchs_attention_with_widths_of_its_own_for_k_and_v():
    x, other = torch.zeros(1, 1, 32), torch.zeros(1, 1, 16)
    attention = nn.MultiheadAttention(32, 4, kdim=16, vdim=16, batch_first=True)
    model = nn.ModuleDict({"attention": attention})
    found = {p.name: p for p in describe(model, lambda: attention(x, other, other))}
    for part in "qkv":
        p = found[f"attention.{part}_proj_weight"]
        assert [(s.part, s.start, s.stop) for s in p.slices] == [(part, *b) for b in blocks(0, 4)]
    assert found["attention.out_proj.weight"].output_heads == 4


def test_yarns_scaled_rotation_does_not_hide_q_and_k():
    rope = {"rope_type": "yarn", "factor": 32.0, "rope_theta": 1e4}
    rope["original_max_position_embeddings"] = 16
    model = causal("Llama", num_key_value_heads=2, rope_parameters=rope)
    rotary = model.model.rotary_emb
    assert rotary.attention_scaling > 1.1
    found, _ = read(model)
    assert found["q_proj", "q"] == blocks(0, 4)
    assert rotary.attention_scaling > 1.1


def test_rows_that_heads_share_or_that_attention_does_not_get_keep_a_weight_whole():
    latent = {"q_lora_rank": 16, "kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8}
    sizes = {"v_head_dim": 8, "head_dim": 4, "n_routed_experts": 4, "first_k_dense_replace": 2}
    model = causal("DeepseekV3", num_key_value_heads=4, **latent, **sizes)
    found = {p.name.split("layers.1.self_attn.")[-1]: p for p in describe(model)}
    shared = found["kv_a_proj_with_mqa.weight"]
    assert shared.attention is None and "kept whole" in shared.reason
    assert len(found["q_b_proj.weight"].slices) == 4
    assert "k, v of 4 heads" in found["kv_b_proj.weight"].reason


def test_probing_leaves_weights_random_state_and_mode_as_they_are():
    model = causal("Llama").train()
    model.model.layers[0].eval()
    before = {n: p.clone() for n, p in model.named_parameters()}
    state = torch.get_rng_state()
    describe(model)
    assert model.training and not model.model.layers[0].mlp.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_model_without_attention_has_none():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    assert probe(model, lambda: model(torch.zeros(1, 4))).attentions == []
    assert smallest_input(model) is None


def test_a_model_that_cannot_be_probed_is_said_and_kept_whole():
    model = causal("Llama")
    model.forward = None
    with pytest.warns(UserWarning, match="could not be probed"):
        parameters = describe(model)
    assert not any(p.attention for p in parameters)
    unseen = [p.name for p in parameters if "could be read in LlamaAttention" in p.reason]
    assert len(unseen) == 2 * 4 and all(".self_attn." in name for name in unseen)

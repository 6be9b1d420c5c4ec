"""What each parameter is: role, layout and reason, on the model families people train."""

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from models import gpt2, vit
from optimizers.structure.parameters import NO_STRUCTURE, ROLES, describe
from optimizers.views import LAYOUTS, as_matrix

WIDTH, HEADS, VOCABULARY = 32, 4, 40
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 8,
}


def tiny_gpt2():
    return gpt2.build(vocab_size=VOCABULARY, layers=2, heads=HEADS, width=WIDTH, positions=8)


def untied_gpt2():
    sizes = {"n_layer": 1, "n_head": HEADS, "n_embd": WIDTH, "n_positions": 8}
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=VOCABULARY, tie_word_embeddings=False, **sizes, **ids)
    return GPT2LMHeadModel(config)


def tiny_vit():
    sizes = {"image_size": 8, "channels": 1, "classes": 5, "patch_size": 4}
    return vit.build(**sizes, layers=2, heads=HEADS, width=WIDTH)


def tiny_llama(**options):
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(**TINY, num_key_value_heads=2, **ids, **options))


def tiny_bert():
    return BertForMaskedLM(BertConfig(**TINY))


def bert_classifier():
    return BertForSequenceClassification(BertConfig(**TINY, num_labels=3))


def conv_net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, (3, 5), groups=2, bias=False),
        nn.GroupNorm(4, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 12),
        nn.Linear(12, 10),
    )


MODELS = {
    "gpt2": tiny_gpt2,
    "untied_gpt2": untied_gpt2,
    "vit": tiny_vit,
    "llama": tiny_llama,
    "bert": tiny_bert,
    "bert_classifier": bert_classifier,
    "conv_net": conv_net,
}

# Name: (role, layout, words of the reason)
EXPECTED = {
    "gpt2": {
        "transformer.wte.weight": ("embedding", "matrix", "tied to lm_head"),
        "transformer.wpe.weight": ("position", "table", "positions"),
        "transformer.h.1.ln_1.weight": ("vector", "vector", "LayerNorm"),
        "transformer.h.1.ln_1.bias": ("vector", "vector", "LayerNorm"),
        "transformer.h.1.attn.c_attn.weight": ("hidden", "transposed", "q, k, v of 4 heads"),
        "transformer.h.1.attn.c_attn.bias": ("vector", "vector", "q, k, v of 4 heads"),
        "transformer.h.1.attn.c_proj.weight": ("hidden", "transposed", "output projection"),
        "transformer.h.1.attn.c_proj.bias": ("vector", "vector", "bias of Conv1D"),
        "transformer.h.1.mlp.c_fc.weight": ("hidden", "transposed", "(in, out)"),
        "transformer.h.1.mlp.c_proj.weight": ("hidden", "transposed", "(in, out)"),
        "transformer.ln_f.weight": ("vector", "vector", "LayerNorm"),
    },
    "untied_gpt2": {
        "transformer.wte.weight": ("embedding", "table", "fan-out its width"),
        "lm_head.weight": ("head", "matrix", "output"),
    },
    "vit": {
        "vit.embeddings.cls_token": ("position", "vector", "token, by its name"),
        "vit.embeddings.position_embeddings": ("position", "table", "positions, by its name"),
        "vit.embeddings.patch_embeddings.projection.weight": ("conv", "kernel", "kernel"),
        "vit.embeddings.patch_embeddings.projection.bias": ("vector", "vector", "bias"),
        "vit.layers.1.attention.q_proj.weight": ("hidden", "matrix", "q of 4 heads"),
        "vit.layers.1.attention.k_proj.bias": ("vector", "vector", "k of 4 heads"),
        "vit.layers.1.attention.o_proj.weight": ("hidden", "matrix", "output projection"),
        "vit.layers.1.mlp.fc1.weight": ("hidden", "matrix", "(out, in)"),
        "vit.layernorm.bias": ("vector", "vector", "LayerNorm"),
        "classifier.weight": ("head", "matrix", "output"),
        "classifier.bias": ("vector", "vector", "bias"),
    },
    "llama": {
        "model.embed_tokens.weight": ("embedding", "table", "fan-out its width"),
        "model.layers.1.self_attn.q_proj.weight": ("hidden", "matrix", "q of 4 heads"),
        "model.layers.1.self_attn.k_proj.weight": ("hidden", "matrix", "k of 2 heads"),
        "model.layers.1.self_attn.v_proj.weight": ("hidden", "matrix", "v of 2 heads"),
        "model.layers.1.self_attn.o_proj.weight": ("hidden", "matrix", "4 heads"),
        "model.layers.1.mlp.gate_proj.weight": ("hidden", "matrix", "(out, in)"),
        "model.layers.1.input_layernorm.weight": ("vector", "vector", "LlamaRMSNorm"),
        "lm_head.weight": ("head", "matrix", "output"),
    },
    "bert": {
        "bert.embeddings.word_embeddings.weight": ("embedding", "matrix", "tied to cls."),
        "bert.embeddings.position_embeddings.weight": ("position", "table", "positions"),
        "bert.embeddings.token_type_embeddings.weight": ("embedding", "table", "Embedding"),
        "bert.encoder.layer.1.attention.self.query.weight": ("hidden", "matrix", "q of 4 heads"),
        "bert.encoder.layer.1.attention.self.value.bias": ("vector", "vector", "v of 4 heads"),
        "bert.encoder.layer.1.attention.output.dense.weight": ("hidden", "matrix", "(out, in)"),
        "cls.predictions.bias": ("vector", "vector", "a vector"),
        "cls.predictions.transform.dense.weight": ("hidden", "matrix", "(out, in)"),
    },
    "bert_classifier": {
        "bert.embeddings.word_embeddings.weight": ("embedding", "table", "Embedding"),
        "bert.pooler.dense.weight": ("hidden", "matrix", "(out, in)"),
        "classifier.weight": ("head", "matrix", "output"),
    },
    "conv_net": {
        "0.weight": ("conv", "kernel", "Conv2d"),
        "0.bias": ("vector", "vector", "Conv2d"),
        "1.weight": ("vector", "vector", "BatchNorm2d"),
        "3.weight": ("conv", "kernel", "Conv2d"),
        "4.bias": ("vector", "vector", "GroupNorm"),
        "7.weight": ("hidden", "matrix", "(out, in)"),
        "8.weight": ("head", "matrix", "output"),
    },
}


@pytest.fixture(scope="module")
def described():
    torch.manual_seed(0)
    models = {name: build() for name, build in MODELS.items()}
    return {name: (model, describe(model)) for name, model in models.items()}


def by_name(parameters):
    return {p.name: p for p in parameters}


@pytest.mark.parametrize("name", MODELS)
def test_roles_layouts_and_reasons(described, name):
    found = by_name(described[name][1])
    for parameter, (role, layout, words) in EXPECTED[name].items():
        p = found[parameter]
        assert (p.role, p.layout) == (role, layout), parameter
        assert words in p.reason, (parameter, p.reason)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_once_and_in_order(described, name):
    model, parameters = described[name]
    assert [p.name for p in parameters] == [n for n, _ in model.named_parameters()]
    assert len({id(p.tensor) for p in parameters}) == len(parameters)
    for p in parameters:
        assert p.tensor is model.get_parameter(p.name)
        assert p.role in ROLES and p.layout in LAYOUTS and p.reason
        assert as_matrix(p.tensor, p.layout).numel() == p.tensor.numel()


@pytest.mark.parametrize("name", MODELS)
def test_no_family_is_left_without_structure(described, name):
    assert NO_STRUCTURE not in {p.reason for p in described[name][1]}


@pytest.mark.parametrize(
    ("name", "heads"), [("gpt2", 1), ("untied_gpt2", 1), ("vit", 1), ("llama", 1), ("conv_net", 1)]
)
def test_there_is_one_head_which_may_be_tied(described, name, heads):
    parameters = described[name][1]
    found = [p for p in parameters if p.role == "head" or "tied to" in p.reason]
    assert len(found) == heads


def test_a_tie_is_an_embedding_in_either_order():
    class Tied(nn.Module):
        def __init__(self, head_first):
            super().__init__()
            embedding, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            parts = {"head": head, "tokens": embedding}
            for name in parts if head_first else reversed(parts):
                self.add_module(name, parts[name])
            head.weight = embedding.weight

    for head_first in (True, False):
        (p,) = describe(Tied(head_first))
        assert (p.role, p.layout) == ("embedding", "matrix")
        assert "tied to head" in p.reason


def test_frozen_parameters_are_left_out():
    model = conv_net()
    model[0].requires_grad_(False)
    names = {p.name for p in describe(model)}
    assert names == {n for n, p in model.named_parameters() if p.requires_grad}
    assert "0.weight" not in names and "7.weight" in names


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (2, 3, 4, 5)])
def test_a_bare_parameter_of_unknown_meaning_says_so_and_is_no_matrix(shape):
    model = conv_net()
    model.experts = nn.Parameter(torch.randn(shape))
    p = by_name(describe(model))["experts"]
    assert (p.role, p.layout, p.reason) == ("vector", "vector", NO_STRUCTURE)


def test_bare_vectors_and_scalars_are_vectors():
    model = conv_net()
    model.gain, model.temperature = nn.Parameter(torch.ones(3)), nn.Parameter(torch.tensor(1.0))
    found = by_name(describe(model))
    for name in ("gain", "temperature"):
        assert (found[name].role, found[name].layout) == ("vector", "vector")


@pytest.mark.parametrize(
    ("name", "shape", "layout"),
    [
        ("pos_embed_position", (1, 6, 4), "table"),
        ("cls_token", (1, 1, 4), "vector"),
        ("register_tokens", (1, 4, 8), "table"),
        ("mask_token", (1, 1, 8), "vector"),
    ],
)
def test_bare_tokens_and_position_tables_are_known_by_name(name, shape, layout):
    model = conv_net()
    model.register_parameter(name, nn.Parameter(torch.randn(shape)))
    p = by_name(describe(model))[name]
    assert (p.role, p.layout) == ("position", layout)


def rows_of(p):
    return {(part, head): (start, stop) for part, head, start, stop in p.slices}


def test_gpt2s_heads_lie_in_thirds(described):
    found = by_name(described["gpt2"][1])
    for kind in ("weight", "bias"):
        p = found[f"transformer.h.0.attn.c_attn.{kind}"]
        rows, size = rows_of(p), WIDTH // HEADS
        assert p.attention == "transformer.h.0.attn"
        assert len(rows) == 3 * HEADS
        assert rows["q", 0] == (0, size) and rows["q", 3] == (3 * size, 4 * size)
        assert rows["k", 0] == (WIDTH, WIDTH + size)
        assert rows["v", 3] == (3 * WIDTH - size, 3 * WIDTH)


@pytest.mark.parametrize(
    ("name", "module", "counts"),
    [
        (
            "llama",
            "model.layers.0.self_attn",
            {"q_proj": ("q", 4), "k_proj": ("k", 2), "v_proj": ("v", 2)},
        ),
        (
            "vit",
            "vit.layers.0.attention",
            {"q_proj": ("q", 4), "k_proj": ("k", 4), "v_proj": ("v", 4)},
        ),
        (
            "bert",
            "bert.encoder.layer.0.attention.self",
            {"query": ("q", 4), "key": ("k", 4), "value": ("v", 4)},
        ),
    ],
)
def test_separate_projections_know_their_heads(described, name, module, counts):
    found = by_name(described[name][1])
    size = WIDTH // HEADS
    for child, (part, heads) in counts.items():
        p = found[f"{module}.{child}.weight"]
        assert p.attention == module
        assert rows_of(p) == {(part, h): (h * size, (h + 1) * size) for h in range(heads)}
        assert p.tensor.shape[0] == heads * size


def test_the_slices_of_an_attention_cover_every_row_once(described):
    for _, parameters in described.values():
        for p in parameters:
            if p.attention:
                edges = sorted((start, stop) for _, _, start, stop in p.slices)
                rows = [row for start, stop in edges for row in range(start, stop)]
                assert rows == list(range(as_matrix(p.tensor, p.layout).shape[0]))


@pytest.mark.parametrize("name", ["gpt2", "vit", "llama"])
def test_the_output_projection_knows_how_many_heads_cut_its_fan_in(described, name):
    outputs = [p for p in described[name][1] if p.output_heads]
    assert len(outputs) == 2  # one a layer
    for p in outputs:
        assert p.output_heads == HEADS and p.attention is None
        assert p.name.endswith((".attn.c_proj.weight", ".o_proj.weight"))

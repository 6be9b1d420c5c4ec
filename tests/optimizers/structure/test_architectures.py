"""The architectures of transformers: what holds for the structure of every one of them."""

import warnings

import pytest
import torch
import transformers
from transformers import AutoConfig

from optimizers.structure.inputs import smallest_input
from optimizers.structure.parameters import NO_STRUCTURE, ROLES, describe
from optimizers.structure.qkv import QKV_MODES, build_views
from optimizers.views import LAYOUTS, gather, scatter

IDS = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
TEXT = IDS | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
MIXTURE = GROUPED | {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
}
GPT = IDS | {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 16}
IMAGE = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8}
BART = {f"{side}_{key}": value for side in ("encoder", "decoder")
        for key, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()}  # fmt: skip

# Model type: (class, sizes, {(part, number of heads)} that attention must be seen to have).
SAME = {("q", 4), ("k", 4), ("v", 4)}
FEWER = {("q", 4), ("k", 2), ("v", 2)}
ONE = {("q", 4), ("k", 1), ("v", 1)}
STAGES = {("q", 2), ("k", 2), ("v", 2)} | SAME
ARCHITECTURES = {
    "gpt2": ("GPT2LMHeadModel", GPT, SAME),
    "gptj": ("GPTJForCausalLM", GPT | {"rotary_dim": 4}, SAME),
    "codegen": ("CodeGenForCausalLM", GPT | {"rotary_dim": 4}, SAME),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", GPT, ONE),
    "gpt_neox": ("GPTNeoXForCausalLM", TEXT, SAME),
    "bloom": ("BloomForCausalLM", IDS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}, SAME),
    "falcon": ("FalconForCausalLM", TEXT | {"multi_query": True}, ONE),
    "mpt": ("MptForCausalLM", IDS | {"d_model": 32, "n_heads": 4, "n_layers": 2}, SAME),
    "opt": ("OPTForCausalLM", TEXT | {"ffn_dim": 48, "word_embed_proj_dim": 32}, SAME),
    "llama": ("LlamaForCausalLM", GROUPED, FEWER),
    "mistral": ("MistralForCausalLM", GROUPED, FEWER),
    "qwen2": ("Qwen2ForCausalLM", GROUPED, FEWER),
    "qwen3": ("Qwen3ForCausalLM", GROUPED, FEWER),
    "phi3": ("Phi3ForCausalLM", GROUPED, FEWER),
    "gemma2": ("Gemma2ForCausalLM", GROUPED, FEWER),
    "gemma3_text": ("Gemma3ForCausalLM", GROUPED, FEWER),
    "olmo2": ("Olmo2ForCausalLM", GROUPED, FEWER),
    "stablelm": ("StableLmForCausalLM", GROUPED, FEWER),
    "cohere2": ("Cohere2ForCausalLM", GROUPED, FEWER),
    "starcoder2": ("Starcoder2ForCausalLM", GROUPED, FEWER),
    "mixtral": ("MixtralForCausalLM", MIXTURE, FEWER),
    "qwen3_moe": ("Qwen3MoeForCausalLM", MIXTURE, FEWER),
    "gpt_oss": ("GptOssForCausalLM", MIXTURE, FEWER),
    "llama4_text": ("Llama4ForCausalLM", MIXTURE | {"intermediate_size_mlp": 48}, FEWER),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        MIXTURE
        | LATENT
        | {"num_key_value_heads": 4, "v_head_dim": 8, "head_dim": 4}
        | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
        SAME,
    ),
    "bert": ("BertForMaskedLM", TEXT, SAME),
    "roberta": ("RobertaForMaskedLM", TEXT, SAME),
    "albert": ("AlbertForMaskedLM", TEXT | {"embedding_size": 16}, SAME),
    "deberta-v2": ("DebertaV2ForMaskedLM", TEXT, SAME),
    "modernbert": ("ModernBertForMaskedLM", TEXT, SAME),
    "distilbert": (
        "DistilBertForMaskedLM",
        IDS | {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 48},
        SAME,
    ),
    "t5": (
        "T5ForConditionalGeneration",
        IDS | {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        SAME,
    ),
    "bart": (
        "BartForConditionalGeneration",
        IDS | {"d_model": 32, "decoder_start_token_id": 0, "forced_eos_token_id": 0} | BART,
        SAME,
    ),
    "vit": ("ViTForImageClassification", IMAGE, SAME),
    "deit": ("DeiTForImageClassification", IMAGE, SAME),
    "dinov2": ("Dinov2ForImageClassification", IMAGE, SAME),
    "swin": (
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2]}
        | {"num_heads": [2, 4], "window_size": 4},
        STAGES,
    ),
    "convnext": (
        "ConvNextForImageClassification",
        {"image_size": 32, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        set(),
    ),
    "resnet": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        set(),
    ),
    "mamba": (
        "MambaForCausalLM",
        IDS | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        set(),
    ),
}
UNKNOWN = {"mamba": {"A_log"}}  # all that may be left without a known structure
QUICK = ("falcon", "gpt_oss", "deepseek_v3", "t5", "swin", "mamba")
EVERY = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in ARCHITECTURES
]


def build(name: str, attention: str | None = None):
    cls, sizes, _ = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **sizes)
    return getattr(transformers, cls)._from_config(config, attn_implementation=attention)


@pytest.fixture(scope="module")
def described():
    found = {}

    def once(name):
        if name not in found:
            model = build(name)
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*could not be probed")
                found[name] = model, describe(model)
        return found[name]

    return once


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_is_described_once_with_a_reason(described, name):
    model, parameters = described(name)
    assert [p.name for p in parameters] == [n for n, _ in model.named_parameters()]
    for p in parameters:
        assert p.role in ROLES and p.layout in LAYOUTS and p.reason
        assert "could be read in" not in p.reason and "not read in" not in p.reason
    unknown = {p.name.rpartition(".")[2] for p in parameters if p.reason == NO_STRUCTURE}
    assert unknown == UNKNOWN.get(name, set())


@pytest.mark.parametrize("name", EVERY)
def test_attention_has_the_heads_that_the_configuration_says(described, name):
    _, parameters = described(name)
    by_attention: dict[str, dict[str, set]] = {}
    for p in parameters:
        if p.role == "hidden":
            for part, head, start, stop in p.slices:
                heads = by_attention.setdefault(p.attention, {}).setdefault(part, set())
                heads.add(head)
                assert 0 <= start < stop <= max(p.tensor.shape)
    found = {(q, len(heads)) for parts in by_attention.values() for q, heads in parts.items()}
    assert found == ARCHITECTURES[name][2]
    outputs = {p.output_heads for p in parameters if p.output_heads}
    assert outputs == {heads for part, heads in found if part == "q"}


@pytest.mark.parametrize("mode", QKV_MODES)
@pytest.mark.parametrize("name", EVERY)
def test_views_partition_every_tensor_and_scatter_undoes_gather(described, name, mode):
    _, parameters = described(name)
    size = 1 if ("k", 1) in ARCHITECTURES[name][2] else 2
    for role in ROLES:
        members = [p for p in parameters if p.role == role]
        tensors = [p.tensor.detach() for p in members]
        copies = [torch.full_like(t, torch.nan) for t in tensors]
        written = 0
        qkv = {"name": mode, "output": "per_head", "heads_per_group": size}
        for view in build_views(members, qkv):
            blocks = gather(view, tensors)
            written += sum(block.numel() for block in blocks)
            scatter(view, blocks, copies)
        assert written == sum(t.numel() for t in tensors)  # none twice
        assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))


@pytest.mark.parametrize("name", EVERY)
def test_eager_attention_is_read_alike(described, name):
    def facts(parameters):
        return [(p.name, p.layout, p.reason, p.slices, p.output_heads) for p in parameters]

    assert facts(describe(build(name, "eager"))) == facts(described(name)[1])


@pytest.mark.parametrize("name", EVERY)
def test_the_model_is_left_as_it_was(name):
    model = build(name)
    forward = smallest_input(model)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    random = torch.get_rng_state()
    describe(model, forward)
    assert torch.equal(torch.get_rng_state(), random)
    after = model.state_dict()
    assert all(torch.equal(before[n].nan_to_num(), after[n].nan_to_num()) for n in before)

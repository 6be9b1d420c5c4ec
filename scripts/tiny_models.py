"""transformers' architectures, tiny and with random weights, for scripts/architectures.py."""

import copy
import inspect
import re
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto as auto

TASKS: dict[str, Any] = {
    "text": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "images": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
}
LARGEST = 60_000_000  # parameters of the largest model that is tried
SIDE, LABELS = 64, 5
# The first pattern that matches the name of a configuration's setting gives its tiny value.
TINY: list[tuple[str, Any]] = [
    (r"(bos|eos|pad|sep|cls|unk|mask|start|end|image|audio|video)\w*_token_id", 0),
    (r"vocab_size|\w+_vocab_size|vocab_size_\w+", 64),
    (r"(swa_)?num_key_value_heads|num_kv_heads|n_head_kv|num_key_value_groups", 2),
    (r"image_size", SIDE),
    (r"(\w+_)?(num_attention_heads|n_heads?|num_heads|attention_heads|num_decoder_heads)", 4),
    (r"num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_(en|de)coder_layers", 2),
    (
        r"hidden_size(_global)?|d_model|n_embd|dim|embed_dim|embedding_size|word_embed_proj_dim|emb_dim",
        32,
    ),
    (r"(swa_)?head_dim|d_kv|v_head_dim|attention_head_size|kv_channels", 8),
    (r"qk_rope_head_dim|rotary_dim", 4),
    (r"qk_nope_head_dim", 8),
    (r"q_lora_rank|kv_lora_rank|rank", 16),
    (r"\w*moe\w*intermediate_size|\w*shared_expert_intermediate_size", 24),
    (r"\w*intermediate_size\w*|d_ff|\w*ffn_dim|n_inner|\w*ffn_hidden_size|hidden_dim", 48),
    (r"(num|n)_(local_|routed_)?experts|moe_num_experts|num_local_experts", 4),
    (r"num_experts_per_tok|moe_top_?k|num_experts_per_token|moe_k", 2),
    (r"n_group|topk_group|num_expert_group", 1),
    (r"first_k_dense_replace", 1),
    (r"max_position_embeddings|n_positions|n_ctx|max_target_positions|context_length", 128),
    (r"depths|layers", lambda values: [min(v, 1) for v in values]),
]
EQUAL = {"num_key_value_heads": 4}
# Tried in turn: how many patterns after the first three are left out, and additional settings
# (latent attention needs equally many heads of k, and rotated ones with their own size).
WAYS: list[tuple[int, dict[str, int]]] = [
    *((0, {}), (0, EQUAL), (0, EQUAL | {"head_dim": 4}), (0, EQUAL | {"pad_token_id": 0})),
    *((5, {}), (9, {}), (9, EQUAL), (15, {})),
]
# What some types need in addition.
SIZES = {"n_heads": 4, "kv_heads": 1, "head_dim": 8, "budget": 8, "compress_ratio": 2}
INDEXER: dict[str, Any] = {f"indexer_{name}": size for name, size in SIZES.items()}
SLIDING: dict[str, Any] = {
    **{f"swa_{name}": 4 for name in ("num_attention_heads", "num_key_value_heads")},
    **{f"swa_{name}": 16 for name in ("q_lora_rank", "kv_lora_rank")},
    **{"swa_head_dim": 12, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8},
}
STAGES: dict[str, Any] = {"hidden_sizes": [16, 32, 48, 64]}
WINDOWS: dict[str, Any] = {"embed_dim": 24}
FOUR: dict[str, Any] = {"num_hidden_layers": 4}
OWN: dict[str, dict[str, Any]] = {
    "donut-swin": WINDOWS,
    "dots3_note": SLIDING,
    "dots3_note_text": SLIDING,
    "efficientnet": {"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
    "perceiver": {"num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 2},
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "convnext": STAGES,
    "convnextv2": STAGES,
    "cvt": {"embed_dim": [16, 48, 96], "depth": [1, 2, 3]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": FOUR
    | {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2}
    | {"intermediate_size": [48] * 4, "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "num_hidden_layers": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": FOUR | {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"zero_expert_num": 1},
    "mamba2": {"hidden_size": 32, "num_heads": 8, "head_dim": 8, "n_groups": 2},
    "musicgen": {"num_codebooks": 1},
    "musicgen_melody": {"num_codebooks": 1},
    "qwen4_exp": INDEXER,
    "qwen4_exp_text": INDEXER,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_shape": (2, 4), "axial_pos_embds_dim": (16, 16), "hidden_size": 32}
    | {"lsh_attn_chunk_length": 4, "local_attn_chunk_length": 4},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "textnet": {"image_size": [SIDE, SIDE]},
    "xmod": {"default_language": "en_XX"},
    "zamba": FOUR | {"layers_block_type": ["mamba", "hybrid"] * 2},
}
BORROWS = "drafts for another model, whose hidden states and keys it is given: no model by itself"
REFUSED = {
    "gemma4_assistant": BORROWS,
    "gemma4_unified_assistant": BORROWS,
    "shieldgemma2": "takes text and an image together: no image classifier",
}


def tiny_config(kind: str, name: str, left_out: int, more: dict[str, Any]) -> Any:
    """A small configuration for the class `name`, or of the tower that it is."""
    cls, own = CONFIG_MAPPING[kind], getattr(transformers, name).config_class
    if own in getattr(cls, "sub_configs", {}).values():
        cls = own
    said = OWN.get(kind, {})
    default = vars(cls())
    if kind in TASKS["text"] and default.get("is_decoder") is False:
        said = said | {"is_decoder": True}  # an encoder by default
    return cls(**_shrunk(default, left_out) | more | said)


def _shrunk(settings: dict[str, Any], left_out: int) -> dict[str, Any]:
    found: dict[str, Any] = {"num_labels": LABELS}
    for name, value in settings.items():
        if type(value).__name__.endswith("Config") and name != "generation_config":
            found[name] = copy.deepcopy(value)
            for key, tiny in _shrunk(vars(value), left_out).items():
                setattr(found[name], key, tiny)
        for number, (pattern, tiny) in enumerate(TINY):
            if re.fullmatch(pattern, name) and (number < 3 or number >= left_out):
                if callable(tiny) and isinstance(value, list | tuple):
                    found[name] = tiny(value)
                elif isinstance(value, int) and not isinstance(value, bool) and not callable(tiny):
                    found[name] = min(value, tiny) if number else tiny
                break
    return found | _layers_of_each_kind(settings, found)


def _layers_of_each_kind(settings: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """Lists with one entry per layer, cut to one layer of each kind, and the number of these."""
    names = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
    counts = {n: settings[n] for n in names if isinstance(settings.get(n), int)}
    if not counts or "depths" in settings:
        return {}
    count = next(iter(counts.values()))
    lists = {
        name: value
        for name, value in settings.items()
        if isinstance(value, list | tuple)
        and len(value) == count
        and len(set(map(str, value))) < min(count, 4)
    }
    if not lists:
        return {}
    kinds = [str(entries) for entries in zip(*lists.values(), strict=True)]
    kept = sorted({kinds.index(kind) for kind in kinds})
    kept = kept if len(kept) > 1 else [0, 1]
    found: dict[str, Any] = dict.fromkeys(counts, len(kept))
    for name, value in lists.items():
        found[name] = [value[i] for i in kept]
        tiny = next((t for pattern, t in TINY if re.fullmatch(pattern, name)), None)
        if isinstance(tiny, int):
            found[name] = [min(v, tiny) for v in found[name]]
    return found


def build(kind: str, name: str) -> nn.Module:
    """The first of the ways that gives a model which runs. Raises the first way's error."""
    cls, first = getattr(transformers, name), None
    if kind in REFUSED:
        raise ValueError(REFUSED[kind])
    for way in WAYS:
        try:
            with torch.device("meta"):
                size = sum(p.numel() for p in cls(tiny_config(kind, name, *way)).parameters())
            if size > LARGEST:
                raise ValueError(f"{size:,} parameters")
            torch.manual_seed(0)
            model = cls(tiny_config(kind, name, *way))
            with torch.no_grad():
                model.eval()(**batch(model, kind))
            return model.train()
        except Exception as error:
            first = first or error
    raise first or ValueError("no configuration")


def batch(model: Any, kind: str) -> dict[str, Any]:
    """Two short texts, or two images."""
    generator = torch.Generator().manual_seed(1)
    wanted = inspect.signature(model.forward).parameters
    if kind not in TASKS["images"] or "pixel_values" not in wanted:
        inputs: dict[str, Any] = {"input_ids": torch.randint(2, 40, (2, 8), generator=generator)}
        return inputs | ({"use_cache": False} if hasattr(model.config, "use_cache") else {})
    sizes = [getattr(c, "image_size", None) for c in (model.config, *vars(model.config).values())]
    side = next((s for s in sizes if s), SIDE)
    side = side if isinstance(side, int) else side[0]
    channels = getattr(model.config, "num_channels", 3)
    if "spatial_shapes" in wanted:  # patches, for images of any size
        width = channels * model.config.vision_config.patch_size**2
        return {
            "pixel_values": torch.rand(2, 16, width, generator=generator),
            "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
            "spatial_shapes": torch.full((2, 2), 4),
        }
    return {"pixel_values": torch.rand(2, channels, side, side, generator=generator)}

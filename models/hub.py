"""Any causal language model or image classifier of transformers, with random weights.

Only a configuration is read: weights are never downloaded, and code from the hub never runs.
"""

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)

from models import fitting
from models.sizes import check_divides, check_positive

ACCEPTED = (
    "a folder or a config.json, a model type such as llama, or with a network the name of a "
    "model on the hub"
)
REACH_SECONDS = 5.0
CONFIG_NAMES = {
    "channels": ("num_channels", "stem_num_channels"),
    "classes": ("num_labels",),
}
# Keys for how a model was stored, run or scored, not for what it is; at any nesting level.
NOT_ARCHITECTURE = {
    *("quantization_config", "compression_config", "dtype", "torch_dtype", "auto_map"),
    *("attn_implementation", "_attn_implementation", "experts_implementation"),
    *("_experts_implementation", "problem_type", "loss_type", "torchscript", "return_dict"),
    *("use_return_dict", "output_attentions", "output_hidden_states", "output_router_logits"),
}


def build(
    *,
    source: str,
    vocab_size: int | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    patch_size: int | None = None,
) -> PreTrainedModel:
    """The architecture that `source` names, sized for the data, without dropout, in fp32.

    `source` is a folder with a config.json, that file, a model type that transformers knows, or a
    name on the hub; only the architecture in a config.json is used. With `vocab_size` the result is
    a causal language model (`input_ids` (batch, sequence) int64), otherwise an image classifier
    (`pixel_values` (batch, channels, image_size, image_size) fp32). Sizes that the architecture
    does not have are ignored. If patches, strides and windows shrink an image too much, smaller
    ones replace them; the model's `fitted` is a dict of these. Weights follow torch's global random
    state.
    Raises ValueError if the source is not found, needs code from the hub, has no head for the task,
    or cannot be built with these sizes.
    """
    given = {
        "vocab_size": vocab_size,
        "image_size": image_size,
        "channels": channels,
        "classes": classes,
        "patch_size": patch_size,
    }
    from_data = {name: size for name, size in given.items() if size is not None}
    check_positive("data", **from_data)
    if image_size and patch_size:
        check_divides("data.patch_size", patch_size, "data.image_size", image_size)
    names = {key: CONFIG_NAMES.get(key, (key,)) for key in from_data}
    sizes = {name: size for key, size in from_data.items() for name in names[key]}
    config = _read_config(source)
    heads: Mapping[str, str | Sequence[str]]
    if vocab_size is None:
        auto: fitting.Auto = AutoModelForImageClassification
        heads = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        task = "image classification, and the data are images"
    else:
        auto, heads = AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        task = "causal language modelling, and the data are text"
    if config.model_type not in heads:
        raise ValueError(
            f"model.source={source}: transformers has no {config.model_type} model for {task}"
        )
    head = heads[config.model_type]
    config.architectures = [head if isinstance(head, str) else head[0]]
    try:
        asked = fitting.sized(config, sizes).to_dict()
        config = fitting.fitted(auto, config, sizes)
        _refuse_too_large(auto, config)
        # A configuration may ask for bf16 weights; weights for training here are fp32.
        model = auto.from_config(config, trust_remote_code=False, dtype=torch.float32)
    except Exception as error:
        raise ValueError(
            f"model.source={source}: cannot be built with {from_data}: {_one_line(error)}"
        ) from error
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None  # nothing is padded here, so every row must learn
    shrinking = ("patch_size", *fitting.SHRINKING)
    chosen = {name: value for name, value in config.to_dict().items() if name in shrinking}
    model.fitted = {name: value for name, value in chosen.items() if value != asked[name]}
    return model


def _refuse_too_large(auto: fitting.Auto, config: PreTrainedConfig) -> None:
    """Raise ValueError for a model whose weights, gradients and AdamW state cannot fit here."""
    with torch.device("meta"):
        count = sum(p.numel() for p in auto.from_config(config).parameters())
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = count * (4 if torch.cuda.is_available() else 16)
    if needed > here:
        raise ValueError(
            f"{count / 1e9:.1f} billion parameters need {needed / 1e9:.0f} GB, "
            f"this machine has {here / 1e9:.0f} GB; give a config.json of a smaller size"
        )


def _read_config(source: str) -> PreTrainedConfig:
    """The configuration of a source, using only transformers' own code."""
    path = Path(source).expanduser()
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        if source in CONFIG_MAPPING:
            return AutoConfig.for_model(source)
        file = _from_hub(source)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        model_type = content.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"model.source={source}: not a model's configuration: {_one_line(error)}"
        ) from error
    if model_type not in CONFIG_MAPPING:
        reason = "its code is not part of transformers" if "auto_map" in content else "unknown"
        raise ValueError(f"model.source={source}: model_type={model_type}: {reason}")
    try:
        return CONFIG_MAPPING[model_type].from_dict(_architecture(content))
    except Exception as error:
        raise ValueError(f"model.source={source}: {_one_line(error)}") from error


def _architecture(content: Any) -> Any:
    """A configuration without the keys that do not identify the model."""
    if isinstance(content, list):
        return [_architecture(item) for item in content]
    if not isinstance(content, dict):
        return content
    return {k: _architecture(item) for k, item in content.items() if k not in NOT_ARCHITECTURE}


def _from_hub(name: str) -> Path:
    """The path of a hub model's config.json, from the local cache or downloaded."""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json", local_files_only=True))
    except Exception:
        pass  # not in the cache: ask the hub
    try:
        # Without a network this fails at once; the download would keep trying for half a minute.
        HfApi().model_info(name, timeout=REACH_SECONDS)
        return Path(hf_hub_download(name, "config.json"))
    except Exception as error:
        raise ValueError(
            f"model.source={name}: not found ({_one_line(error)}).\nAccepted: {ACCEPTED}."
        ) from error


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" …")

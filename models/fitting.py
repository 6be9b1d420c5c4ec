"""A configuration with the data's sizes, and which settings are reduced for a small image."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, PreTrainedConfig

Auto = type[AutoModelForCausalLM] | type[AutoModelForImageClassification]
# Settings besides patch_size that shrink an image on its way through a model.
SHRINKING = ("window_size", "strides", "stride")
HALVINGS = 3


def fitted(auto: Auto, config: PreTrainedConfig, sizes: dict[str, Any]) -> PreTrainedConfig:
    """The configuration with these sizes.

    Hierarchical models halve an image repeatedly after their patches, and some read it in windows.
    If the image does not pass through the model, other settings are tried. If none works, the sizes
    stay as requested.
    """
    if "patch_size" in sizes:
        tried: list[dict[str, Any]] = []
        for one in _gentler(config, sizes):
            content = sized(config, one).to_dict()
            if content not in tried:
                tried.append(content)
                if _passes(auto, config, one):
                    sizes = one
                    break
    return sized(config, sizes)


def _gentler(config: PreTrainedConfig, sizes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Sizes that shrink an image less and less: the requested patches, the model's own, smaller
    ones; then all of these with smaller windows and strides, halved up to HALVINGS times."""
    own = {name: size for name, size in sizes.items() if name != "patch_size"}
    patches = (sizes, own, sizes | {"patch_size": 2}, sizes | {"patch_size": 1})
    yield from patches
    asked: dict[str, Any] = {}
    for part in reversed(_parts(config)):
        asked |= {name: getattr(part, name) for name in SHRINKING if hasattr(part, name)}
    for times in range(1, HALVINGS + 1):
        halved = {name: _halved(value, times) for name, value in asked.items()}
        yield from (one | halved for one in patches)


def _halved(value: Any, times: int) -> Any:
    """A number halved `times` times; in a list (strides by stage) always the first above 1."""
    if not isinstance(value, list | tuple):
        return max(1, value >> times) if isinstance(value, int) else value
    stages = list(value)
    for _ in range(times):
        above = [i for i, one in enumerate(stages) if isinstance(one, int) and one > 1]
        if above:
            stages[above[0]] //= 2
    return stages


def _passes(auto: Auto, config: PreTrainedConfig, sizes: dict[str, Any]) -> bool:
    """Whether an image passes through a model with these sizes; allocates no memory for numbers."""
    try:
        with torch.device("meta"), torch.no_grad():
            model = auto.from_config(sized(config, sizes)).eval()
            side = sizes["image_size"]
            model(pixel_values=torch.empty(1, sizes["num_channels"], side, side))
    except Exception:  # the model may raise anything
        return False
    return True


def sized(config: PreTrainedConfig, sizes: dict[str, Any]) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    for part in _parts(config):
        _fit(part, sizes)
    return config


def _parts(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    """A configuration and those nested in it, such as `text_config`."""
    nested = [getattr(config, name, None) for name in config.sub_configs]
    return [config, *(part for part in nested if isinstance(part, PreTrainedConfig))]


def _fit(config: PreTrainedConfig, sizes: dict[str, Any]) -> None:
    """Set the sizes that a configuration has, no dropout, and token ids within the vocabulary."""
    for name, size in sizes.items():
        if hasattr(config, name):
            sides = getattr(config, name)
            several = isinstance(sides, list | tuple) and isinstance(size, int)
            setattr(config, name, [size] * len(sides) if several else size)
    for name, value in config.to_dict().items():
        if "drop" in name and type(value) in (int, float):
            setattr(config, name, type(value)(0))
    vocabulary = sizes.get("vocab_size")
    if vocabulary is None:
        return
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = getattr(config, name, None)
        if isinstance(ids, list):
            ids = ids[0] if ids else None
        if ids is not None and ids >= vocabulary:
            setattr(config, name, None if name == "pad_token_id" else vocabulary - 1)
    config.use_cache = False
    if hasattr(config, "is_decoder"):
        config.is_decoder = True  # otherwise BERT and similar models see the tokens to predict

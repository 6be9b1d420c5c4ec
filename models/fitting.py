"""A configuration in the sizes of the data; what of it gives way where an image is too small."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, PreTrainedConfig

Auto = type[AutoModelForCausalLM] | type[AutoModelForImageClassification]
# What shrinks an image on its way through a model, beside patch_size.
SHRINKING = ("window_size", "strides", "stride")
HALVINGS = 3


def fitted(auto: Auto, config: PreTrainedConfig, sizes: dict[str, Any]) -> PreTrainedConfig:
    """The configuration in these sizes.

    Hierarchies halve an image again and again behind their patches, and some read it by windows
    of their own: where it does not pass, other settings are tried. Where none helps, the sizes
    are as asked for.
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
    """Sizes that shrink an image less and less: the patches asked for, the model's own, smaller
    ones; then all of them again with smaller windows and strides, halved up to HALVINGS times."""
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
    """A number, or the first above 1 of several, as the strides of a model's stages, so often."""
    if not isinstance(value, list | tuple):
        return max(1, value >> times) if isinstance(value, int) else value
    stages = list(value)
    for _ in range(times):
        above = [i for i, one in enumerate(stages) if isinstance(one, int) and one > 1]
        if above:
            stages[above[0]] //= 2
    return stages


def _passes(auto: Auto, config: PreTrainedConfig, sizes: dict[str, Any]) -> bool:
    """Whether an image passes through a model of these sizes; no memory for numbers is taken."""
    try:
        with torch.device("meta"), torch.no_grad():
            model = auto.from_config(sized(config, sizes)).eval()
            side = sizes["image_size"]
            model(pixel_values=torch.empty(1, sizes["num_channels"], side, side))
    except Exception:  # whatever a model's own code raises
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
    """Set the sizes a configuration has, no dropout, and token ids inside the vocabulary."""
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
        config.is_decoder = True  # BERT and its kin would otherwise see the tokens they predict

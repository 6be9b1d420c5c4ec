"""The smallest input that a model accepts, and the model inside its wrappers."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

TOKENS = 2  # with a single one, tokens and heads could not be told apart
SIDE = 32  # of an image, if the configuration does not say


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel and the like, or torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and [name for name, _ in model.named_children()] == ["module"]:
            own = next(model.parameters(recurse=False), None)
            inner = getattr(model, "module", None) if own is None else None
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def smallest_input(model: nn.Module) -> Callable[[], Any] | None:
    """A forward pass over the smallest input that a model accepts; None if that is unknown.

    It is known for transformers' models and for others whose `forward` takes `input_ids`.
    """
    config = getattr(model, "config", None)
    wanted = inspect.signature(model.forward).parameters
    named = getattr(model, "main_input_name", None), next(iter(wanted), None), "pixel_values"
    name = next((n for n in named if n in wanted and n in ("input_ids", "pixel_values")), None)
    first = next(model.parameters(), None)
    device = None if first is None else first.device
    inputs: dict[str, Any]
    if name == "input_ids":
        inputs = {name: torch.zeros(1, TOKENS, dtype=torch.long, device=device)}
        if getattr(config, "is_encoder_decoder", False):
            inputs["decoder_input_ids"] = inputs[name]
        if "labels" in wanted and wanted["labels"].default is inspect.Parameter.empty:
            inputs["labels"] = inputs[name]
    elif name == "pixel_values" and config is not None:
        size = _said(config, "image_size") or SIDE
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shape = (1, _said(config, "num_channels") or 3, height, width)
        dtype = None if first is None else first.dtype
        inputs = {name: torch.zeros(shape, device=device, dtype=dtype)}
    else:
        return None
    if "use_cache" in wanted:
        inputs["use_cache"] = False
    return lambda: _without_cache(model, inputs)


def _without_cache(model: nn.Module, inputs: dict[str, Any]) -> Any:
    """Run with use_cache off in the configurations, which some `forward`s follow."""
    config = getattr(model, "config", None)
    configs = [] if config is None else list(_configs(config))
    wishes = [(c, c.use_cache) for c in configs if getattr(c, "use_cache", False)]
    for inner, _ in wishes:
        inner.use_cache = False
    try:
        return model(**inputs)
    finally:
        for inner, wish in wishes:
            inner.use_cache = wish


def _said(config: Any, key: str) -> Any:
    """The value in a configuration, or else in one nested in it (a tower's)."""
    return next((v for c in _configs(config) if (v := getattr(c, key, None))), None)


def _configs(config: Any) -> Iterator[Any]:
    yield config
    for inner in getattr(config, "__dict__", {}).values():
        if type(inner).__name__.endswith("Config"):
            yield from _configs(inner)

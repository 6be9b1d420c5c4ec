"""Checks of the settings, tensors and state of Muon's param groups."""

import math
from collections.abc import Mapping
from dataclasses import fields
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.quantized import count_scales
from optimizers.second_moment import KINDS, neurons
from optimizers.sharding.plan import STRATEGIES, count_processes
from optimizers.sharding.regions import local, mesh_of
from optimizers.stacks import update_scale
from optimizers.views import LAYOUTS, View, fits, matrix_shape

MOMENTUM_DTYPES = {
    None: None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
}
MOMENTUM_FORMS = ("ema", "classical")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check(group: dict[str, Any]) -> None:
    """Raise ValueError, naming the setting, if a group's settings make no sense."""
    for name in ("lr", "weight_decay"):
        if not 0 <= number(name, group[name]) < math.inf:
            raise ValueError(f"optimizer {name}={group[name]}: must be a number, 0 or above")
    for name in ("momentum", "beta2"):
        if not 0 <= number(name, group[name]) < 1:
            raise ValueError(f"optimizer {name}={group[name]}: must be in [0, 1)")
    for name in ("nesterov", "sign", "cautious", "keep_norm"):
        if not isinstance(group[name], bool):
            raise ValueError(f"optimizer {name}={group[name]}: must be true or false")
    for name, accepted in (
        ("momentum_form", MOMENTUM_FORMS),
        ("momentum_dtype", tuple(MOMENTUM_DTYPES)),
        ("second_moment", KINDS),
        ("sharding", STRATEGIES),
    ):
        if group[name] not in accepted:
            choices = ", ".join("null" if choice is None else choice for choice in accepted)
            raise ValueError(f"optimizer {name}={group[name]}: must be one of {choices}")
    for name in ("shards", "period"):
        whole = isinstance(group[name], int) and not isinstance(group[name], bool)
        if not whole or group[name] < 1:
            raise ValueError(f"optimizer {name}={group[name]}: must be a whole number above 0")
    if group["shards"] > 1 and group["second_moment"] == "neuron":
        raise ValueError("optimizer shards: not together with second_moment=neuron")
    if group["keep_norm"]:
        check_keep_norm(group)
    update_scale(group["scale"], 1, 1)
    check_orthogonalizer(group["orthogonalizer"])
    check_tensors(group)
    check_processes(group)


def check_keep_norm(group: dict[str, Any]) -> None:
    """Raise ValueError for what would have no effect, or another one, if the norm is kept."""
    for name, off in (("weight_decay", 0), ("shards", 1)):
        if group[name] != off:
            raise ValueError(f"optimizer keep_norm=True: needs {name}={off}, not {group[name]}")


def number(name: str, value: object) -> float:
    """A setting as a float; a tensor is accepted if it has one element."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    raise ValueError(f"optimizer {name}={shown}: must be one number")


def check_orthogonalizer(settings: object) -> None:
    """Raise ValueError unless these are settings of an Orthogonalizer."""
    known = [field.name for field in fields(Orthogonalizer)]
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"optimizer orthogonalizer={settings!r}: must be a mapping of {', '.join(known)}"
        )
    for name, value in settings.items():
        if name not in known:
            raise ValueError(
                f"optimizer orthogonalizer.{name}={value}: no such setting; accepted: "
                f"{', '.join(known)}"
            )
    Orthogonalizer(**settings)


def called(group: dict[str, Any], member: int) -> str:
    """A tensor's name in messages: its own name, if the group has names, and its shape."""
    names = group.get("param_names")
    name = names[member] if names and member < len(names) else f"tensor {member}"
    return f"{name} of shape {tuple(group['params'][member].shape)}"


def check_tensors(group: dict[str, Any]) -> None:
    """Raise ValueError, naming the tensor, if a trained tensor or its gradient is of a kind that
    has no polar factor here. Frozen tensors may be of any kind."""
    for member, p in enumerate(group["params"]):
        integer = not (p.is_floating_point() or p.is_complex())
        if not p.requires_grad and not (integer and p.grad is not None):
            continue
        for tensor, what in ((p, ""), (p.grad, "the gradient of ")):
            if tensor is None:
                continue
            dense = tensor.layout is torch.strided
            if not dense or tensor.dtype not in DTYPES:
                kind = str(tensor.dtype).removeprefix("torch.")
                raise ValueError(
                    f"optimizer params: {what}{called(group, member)} is "
                    f"{'dense' if dense else 'sparse'} {kind}; Muon takes dense float64, float32, "
                    "bfloat16 and float16"
                )


def check_processes(group: dict[str, Any]) -> None:
    """Raise ValueError if several processes cannot step tensors with this placement together."""
    params, sharding = group["params"], group["sharding"]
    if not params:
        return
    meshes = {mesh_of(p) for p in params}
    if len(meshes) > 1:
        raise ValueError("optimizer params: the tensors of a group must lie on one mesh or on none")
    count = count_processes(params)
    if count == 1:
        return
    sharded = meshes != {None}
    accepted = STRATEGIES[1:] if sharded else STRATEGIES[:2]
    if sharding not in accepted:
        how = "DTensors over" if sharded else "plain tensors on each of"
        raise ValueError(
            f"optimizer sharding={sharding}: the parameters are {how} {count} processes, "
            f"which takes {', '.join(accepted)}"
        )
    if sharding == "replicate":
        return
    random = group["orthogonalizer"].get("singular_values")
    for name, value, needs_wholes in (
        ("second_moment", group["second_moment"], group["second_moment"] != "none"),
        ("momentum_dtype", group["momentum_dtype"], group["momentum_dtype"] == "int8"),
        ("keep_norm", group["keep_norm"], group["keep_norm"]),
        ("shards", group["shards"], group["shards"] > 1),
        ("orthogonalizer.singular_values", random, random is not None),
    ):
        if needs_wholes:
            raise ValueError(
                f"optimizer {name}={value}: needs sharding=replicate (of a run: parallel=ddp "
                f"parallel.muon=replicate), here it is {sharding} over {count} processes"
            )


def check_views(group: dict[str, Any], views: list[View]) -> None:
    """Raise ValueError, naming the tensor, unless the views read each tensor once and whole."""
    cuts: dict[int, list[tuple[int, int]]] = {k: [] for k in range(len(group["params"]))}
    readings: dict[int, tuple[str, int]] = {}
    for view in views:
        layout, axis = view["layout"], view["axis"]
        if layout not in LAYOUTS or axis not in (0, 1):
            raise ValueError(
                f"optimizer views: layout={layout} with axis={axis}; the layout must be one of "
                f"{', '.join(LAYOUTS)}, the axis 0 or 1"
            )
        for member, start, stop in (piece for block in view["blocks"] for piece in block):
            if member not in cuts or member not in view["members"]:
                raise ValueError(
                    f"optimizer views: a block reads tensor {member}, but the members are "
                    f"{view['members']} and the group has {len(cuts)} tensors"
                )
            if not fits(group["params"][member], layout):
                raise ValueError(
                    f"optimizer views: {called(group, member)} cannot be read as {layout}"
                )
            if readings.setdefault(member, (layout, axis)) != (layout, axis):
                raise ValueError(
                    f"optimizer views: {called(group, member)} is read in two ways, as "
                    f"{readings[member]} and as {(layout, axis)}"
                )
            cuts[member].append((start, stop))
    for member, found in cuts.items():
        p = group["params"][member]
        if not found and p.numel() == 0:
            continue
        layout, axis = readings.get(member, ("vector", 0))
        shape = matrix_shape(p.shape, layout)
        _check_cover(called(group, member), p, sorted(found), shape[axis], shape[1 - axis])


def _check_cover(name: str, p: Tensor, cuts: list[tuple[int, int]], length: int, across: int):
    """Check that the pieces of a tensor follow each other from 0 to its `length`."""
    end = 0
    for start, stop in cuts:
        if start < end:
            raise ValueError(
                f"optimizer views: {name} is read twice, in its row or column {start}; "
                f"the pieces are {cuts}"
            )
        end = stop
    read = sum(stop - start for start, stop in cuts) * across
    if read != p.numel() or end > length:
        raise ValueError(
            f"optimizer views: {name} has {p.numel()} elements, its views read {read}"
            + (f" and end at {end} of {length}" if end > length else "")
        )


def check_state(
    group: dict[str, Any], member: int, state: dict[str, Any], views: list[View]
) -> None:
    """Raise ValueError, naming the tensor, if its state does not have the shape that it needs."""
    p = group["params"][member]
    wanted = {"momentum_buffer": local(p).shape, "element_moment": local(p).shape}
    if "momentum_scale" in state:
        wanted["momentum_scale"] = torch.Size([count_scales(local(p).numel())])
    if "neuron_moment" in state:
        wanted["neuron_moment"] = torch.Size([neurons(views, group["params"], member)])
    for name, shape in wanted.items():
        if isinstance(value := state.get(name), Tensor) and local(value).shape != shape:
            raise ValueError(
                f"optimizer state: {name} of {called(group, member)} has the shape "
                f"{tuple(local(value).shape)}, not {tuple(shape)}; is it another model's, or "
                "are its parameters in another order?"
            )

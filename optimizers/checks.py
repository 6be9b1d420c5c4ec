"""The settings of one of Muon's param groups, checked."""

import math
from typing import Any

import torch

from optimizers.orthogonalize.iteration import Orthogonalizer
from optimizers.second_moment import KINDS
from optimizers.sharding.plan import STRATEGIES, count_processes
from optimizers.sharding.regions import mesh_of
from optimizers.stacks import update_scale
from optimizers.views import as_matrix, matrix_shape

MOMENTUM_DTYPES = {None: None, "fp32": torch.float32, "bf16": torch.bfloat16}
MOMENTUM_FORMS = ("ema", "classical")


def check(group: dict[str, Any]) -> None:
    """Raise ValueError, naming the setting, where a group's settings make no sense."""
    lr = float(group["lr"])
    if not 0 <= lr < math.inf:
        raise ValueError(f"optimizer lr={lr}: must be a number, 0 or above")
    if not 0 <= group["weight_decay"] < math.inf:
        raise ValueError(
            f"optimizer weight_decay={group['weight_decay']}: must be a number, 0 or above"
        )
    for name in ("momentum", "beta2"):
        if not 0 <= group[name] < 1:
            raise ValueError(f"optimizer {name}={group[name]}: must be in [0, 1)")
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
        if not isinstance(group[name], int) or group[name] < 1:
            raise ValueError(f"optimizer {name}={group[name]}: must be a whole number above 0")
    if group["shards"] > 1 and group["second_moment"] == "neuron":
        raise ValueError("optimizer shards: not together with second_moment=neuron")
    update_scale(group["scale"], 1, 1)
    Orthogonalizer(**group["orthogonalizer"])
    check_cover(group)
    check_processes(group)


def check_processes(group: dict[str, Any]) -> None:
    """What several processes can do together with tensors that lie as these."""
    params, sharding = group["params"], group["sharding"]
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
    for name, value, off in (
        ("second_moment", group["second_moment"], "none"),
        ("shards", group["shards"], 1),
        ("orthogonalizer.singular_values", random, None),
    ):
        if value != off:
            raise ValueError(
                f"optimizer {name}={value}: needs sharding=replicate (of a run: parallel=ddp "
                f"parallel.muon=replicate), here it is {sharding} over {count} processes"
            )


def check_cover(group: dict[str, Any]) -> None:
    """Every tensor is read by one view, once and whole, without a copy."""
    read = [0] * len(group["params"])
    for view in group["views"]:
        for member, start, stop in (piece for block in view["blocks"] for piece in block):
            tensor = group["params"][member]
            if mesh_of(tensor) is None:
                as_matrix(tensor, view["layout"])
            shape = matrix_shape(tensor.shape, view["layout"])
            read[member] += (stop - start) * shape[1 - view["axis"]]
    for number, (p, elements) in enumerate(zip(group["params"], read, strict=True)):
        if elements != p.numel():
            raise ValueError(
                f"optimizer views: tensor {number} of shape {tuple(p.shape)} has {p.numel()} "
                f"elements, its views read {elements}"
            )

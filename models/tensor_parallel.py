"""Tensor parallelism for transformers' models: which linear maps are sharded, and how.

The first map of a pair (Q, K, V; the MLP's first) is sharded along its fan-out, the second along
its fan-in, so that a pair needs one all-reduce forward and one backward (Megatron-LM, arXiv
1909.08053). torch's own styles accept nn.Linear only; GPT-2 has Conv1D, with Q, K and V in one.
"""

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module
from torch.distributed.tensor.placement_types import Placement, _StridedShard
from transformers.pytorch_utils import Conv1D

# By model type, for models without a plan in transformers (`config.base_model_tp_plan`).
PLANS = {
    "gpt2": {
        "transformer.h.*.attn.c_attn": "colwise",
        "transformer.h.*.attn.c_proj": "rowwise",
        "transformer.h.*.mlp.c_fc": "colwise",
        "transformer.h.*.mlp.c_proj": "rowwise",
    },
    "vit": {
        **{f"vit.layers.*.attention.{x}_proj": "colwise" for x in "qkv"},
        "vit.layers.*.attention.o_proj": "rowwise",
        "vit.layers.*.mlp.fc1": "colwise",
        "vit.layers.*.mlp.fc2": "rowwise",
    },
}
STYLES = ("colwise", "rowwise")
JOINED = {"gpt2": {"*.attn.c_attn": 3}}  # maps whose fan-out contains several maps side by side


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the model's attention and MLP over the mesh's processes, in place.

    Weights of the sharded maps become DTensors; everything else (norms, embeddings, the head,
    biases) stays whole on every process. mesh: one dimension, called "tensor". Raises ValueError
    for a model without a plan, and if heads or MLP units do not divide evenly.
    """
    plan = styles(model)
    refuse_uneven(model, plan, mesh.size())
    parallelize_module(model, mesh, plan)
    module: Any
    for module in model.modules():
        if hasattr(module, "split_size"):  # GPT-2 splits its joined map's fan-out by it
            module.split_size //= mesh.size()


def styles(model: nn.Module) -> dict[str, ParallelStyle]:
    """How each sharded linear map is sharded, by its name. Raises ValueError without a plan."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    own = getattr(config, "base_model_tp_plan", None) or {}
    patterns = PLANS.get(kind) or {prefix + name: style for name, style in own.items()}
    if not patterns or not set(patterns.values()) <= set(STYLES):
        raise ValueError(
            f"parallel: {kind} models have no plan for tensor parallelism that is known here; "
            f"use parallel=fsdp2, or one of {', '.join(PLANS)}, llama"
        )
    found: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        style = next((s for pattern, s in patterns.items() if fnmatch(name, pattern)), None)
        if style == "colwise" and isinstance(module, nn.Linear | Conv1D):
            joined = JOINED.get(kind, {})
            parts = next((n for pattern, n in joined.items() if fnmatch(name, pattern)), 1)
            found[name] = Columns(parts)
        elif style == "rowwise" and isinstance(module, nn.Linear | Conv1D):
            found[name] = Rows()
    return found


def refuse_uneven(model: nn.Module, plan: dict[str, ParallelStyle], processes: int) -> None:
    for key in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(model.config, key, None)
        if heads is not None and heads % processes:
            raise ValueError(
                f"parallel: {heads} heads ({key}) do not divide over {processes} processes; use "
                f"a number of processes that divides {heads}"
            )
    for name in plan:
        module = model.get_submodule(name)
        cut = fan_out(module) if isinstance(plan[name], Columns) else fan_in(module)
        units = module.get_parameter("weight").shape[cut]
        if units % processes:
            raise ValueError(
                f"parallel: the {units} units of {name} do not divide over {processes} processes"
            )


def fan_out(module: nn.Module) -> int:
    """The weight's fan-out dimension."""
    return 1 if isinstance(module, Conv1D) else 0


def fan_in(module: nn.Module) -> int:
    return 1 - fan_out(module)


class Columns(ParallelStyle):
    """Shard along the fan-out: whole input, own part of the output. parts: maps joined in one."""

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts

    def _apply(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        dim = fan_out(module)
        rows = _StridedShard(dim, split_factor=self.parts) if self.parts > 1 else Shard(dim)
        place(module, mesh, rows)
        own = own_part(module, mesh, self.parts)

        def forward(x: Tensor) -> Tensor:
            bias = module.bias
            part = own(summed_backward(bias, mesh)) if isinstance(bias, Tensor) else None
            return linear(module, summed_backward(x, mesh), part)

        module.forward = forward
        return module


class Rows(ParallelStyle):
    """Shard along the fan-in: own part of the input, whole output."""

    def _apply(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        place(module, mesh, Shard(fan_in(module)))

        def forward(x: Tensor) -> Tensor:
            out = summed_forward(linear(module, x, None), mesh)
            return out + module.bias if isinstance(module.bias, Tensor) else out

        module.forward = forward
        return module


def place(module: nn.Module, mesh: DeviceMesh, placement: Placement) -> None:
    """Make the weight a DTensor: each process keeps its part of the common weight."""
    whole = module.get_parameter("weight")
    part = distribute_tensor(whole.detach(), mesh, [placement], src_data_rank=None)
    module.weight = nn.Parameter(part, requires_grad=whole.requires_grad)


def own_part(module: nn.Module, mesh: DeviceMesh, parts: int) -> Callable[[Tensor], Tensor]:
    """This process's part of a bias, which itself stays whole."""
    processes, rank = mesh.size(), mesh.get_local_rank()

    def own(bias: Tensor) -> Tensor:
        return bias.view(parts, processes, -1)[:, rank].reshape(-1)

    return own


def linear(module: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    """The map with the part of its weight that this process has."""
    assert isinstance(module.weight, DTensor)  # place made it one
    weight = module.weight.to_local()
    return F.linear(x, weight.T if isinstance(module, Conv1D) else weight, bias)


def summed_backward(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """x itself; its gradient is summed over the processes."""
    same = DTensor.from_local(x, mesh, [Replicate()], run_check=False)
    return same.to_local(grad_placements=[Partial()])


def summed_forward(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """The sum of x over the processes; its gradient passes as it is."""
    parts = DTensor.from_local(x, mesh, [Partial()], run_check=False)
    return parts.redistribute(placements=[Replicate()]).to_local()

"""LoRA (Hu et al. 2021, 2106.09685): matrices of low rank beside a model's frozen weights."""

import math

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def add(model: nn.Module, rank: int) -> None:
    """Freeze a model, and add B A x, of this rank, to the output of each linear map but the head.

    The two matrices are `lora_A.weight` (rank, in) and `lora_B.weight` (out, rank) of that map's
    module, so that all other names stay; they begin as in PEFT with lora_alpha = rank: A uniform by
    torch's global random state, B zero, which changes nothing yet.
    Raises ValueError for a rank below 1 and for a model without linear maps.
    """
    if rank < 1:
        raise ValueError(f"lora_rank={rank}: must be at least 1")
    model.requires_grad_(False)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    maps = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    if not maps:
        raise ValueError(f"lora_rank={rank}: {type(model).__name__} has no linear map to adapt")
    for module in maps:
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
        fan_out, fan_in = weight.shape
        module.lora_A = nn.Linear(fan_in, rank, bias=False)
        module.lora_B = nn.Linear(rank, fan_out, bias=False)
        nn.init.kaiming_uniform_(module.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(module.lora_B.weight)
        module.register_forward_hook(_adapt)


def _adapt(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    down, up = module.get_submodule("lora_A"), module.get_submodule("lora_B")
    return output + up(down(inputs[0]))

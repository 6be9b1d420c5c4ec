"""Triton kernels, imported only where they are launched: torch brings Triton for GPUs alone."""

import contextlib
import functools
import importlib.util
from contextlib import AbstractContextManager

import torch
from torch import Tensor

FIELDS = 14  # that a table says of a move, see moves.py
ROWS, COLUMNS = 32, 128  # of a tile of a strip; 32 entries a thread


@functools.cache
def installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def device_of(tensor: Tensor) -> AbstractContextManager:
    """Where a kernel is launched; on a CPU only Triton's interpreter takes one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()

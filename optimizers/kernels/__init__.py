"""Triton kernels, imported only where they are launched: torch installs Triton only for GPUs."""

import contextlib
import functools
import importlib.util
from contextlib import AbstractContextManager

import torch
from torch import Tensor

FIELDS = 14  # columns of a row in the table of moves, see moves.py
ROWS, COLUMNS = 32, 128  # size of a tile of a strip; 32 entries per thread


@functools.cache
def installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def device_of(tensor: Tensor) -> AbstractContextManager:
    """The device to launch a kernel on; on a CPU only Triton's interpreter runs one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()

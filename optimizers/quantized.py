"""Momentum in 8 bits: codes of one byte, and one fp32 scale for every BLOCK of them.

A block is BLOCK successive values of a tensor in its logical order; its scale is the largest
absolute value / 127 (block-wise absmax: Dettmers et al. 2022, arXiv 2110.02861; even codes, which
suffice for Muon: arXiv 2509.23106). Rounding is stochastic, so that a code's expected value is the
value itself: rounding to the nearest code would lose every gradient below half a step of its block.
A value is off by less than one step, 1/127 of the largest of its block. In a block with a value
that is not finite, that value stays so and the others may become so.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from optimizers.stacks import Stack

BLOCK = 256
TOP = 127
AT_ONCE = 2**12  # blocks whose dice are rolled together, which bounds their memory


def count_scales(count: int) -> int:
    """Number of scales of `count` values."""
    return math.ceil(count / BLOCK)


def encode(values: Tensor, codes: Tensor, scales: Tensor, seed: int) -> None:
    """Write the codes (int8, of the values' shape) and scales (fp32) of `values` (fp32), which are
    used up.

    The seed alone determines the rounding: equal on all processes, and again after a resume.
    """
    blocks = _blocks(values)
    # The least normal number, not 0: a block of zeros is divided by it too.
    largest = torch.maximum(blocks.amax(1), -blocks.amin(1))
    scales.copy_((largest / TOP).clamp_min_(torch.finfo(torch.float32).tiny))
    blocks.div_(scales[:, None])
    dice = torch.Generator(values.device).manual_seed(seed)
    for part in blocks.split(AT_ONCE):
        part.add_(torch.rand(part.shape, generator=dice, device=part.device))
    blocks.floor_().clamp_(-TOP, TOP).nan_to_num_()
    codes.copy_(blocks.view(-1)[: codes.numel()].view(codes.shape))


def decode(codes: Tensor, scales: Tensor) -> Tensor:
    """The values in fp32, in the codes' memory order."""
    values = torch.empty_like(codes, dtype=torch.float32).copy_(codes)
    blocks = _blocks(values).mul_(scales[:, None])
    return values.copy_(blocks.view(-1)[: codes.numel()].view(codes.shape))


def _blocks(values: Tensor) -> Tensor:
    """(blocks, BLOCK), the last one filled up with zeros; a view of the values if possible."""
    flat = values.reshape(-1)
    missing = -len(flat) % BLOCK
    return (pad(flat, (0, missing)) if missing else flat).view(-1, BLOCK)


class Momenta:
    """The momentum of a group's tensors during a step, by position, in floating point.

    8-bit momentum is decoded when the first round of stacks reads it and encoded after the last
    one, so that few tensors are decoded at a time.
    """

    def __init__(
        self, states: dict[int, dict[str, Tensor]], rounds: list[list[Stack]], step: int
    ) -> None:
        """step: number of this step, from which the rounding follows."""
        self.states, self.step = states, step
        self.kept = {k: state["momentum_buffer"] for k, state in states.items()}
        self.coded = {k for k, buffer in self.kept.items() if buffer.dtype == torch.int8}
        self.decoded: dict[int, Tensor] = {}
        self.last: dict[int, int] = {}  # the last round that reads each
        if self.coded:
            self.last = {k: i for i, stacks in enumerate(rounds) for k in read_by(stacks)}

    def opened(self, stacks: list[Stack]) -> dict[int, Tensor]:
        """The momentum that the stacks read, to be updated in place."""
        if not self.coded:
            return self.kept
        members = read_by(stacks)
        for k in members & self.coded - self.decoded.keys():
            self.decoded[k] = decode(self.kept[k], self.states[k]["momentum_scale"])
        return {k: self.decoded.get(k, buffer) for k, buffer in self.kept.items() if k in members}

    def close(self, number: int) -> None:
        """Encode what no round after this one reads."""
        for k in [k for k in self.decoded if self.last[k] == number]:
            scales = self.states[k]["momentum_scale"]
            encode(self.decoded.pop(k), self.kept[k], scales, seed(self.step, k))


def read_by(stacks: list[Stack]) -> set[int]:
    """Positions of the tensors that the stacks read."""
    return {move.segment.member for stack in stacks for move in stack.moves}


def seed(step: int, member: int) -> int:
    """Of a tensor's rounding in a step; torch's generator on a CPU takes 32 bits of it."""
    return (step * 1_000_003 + member) % 2**32

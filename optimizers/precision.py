"""Which dtype a device's matrix products run fastest in."""

import functools
import time

import torch


@functools.cache
def bf16_pays(device_type: str) -> bool:
    """True if the hardware computes bf16 products and they are faster than fp32's.

    Tensor cores and AMX are known from their flag. AVX512-BF16 is not enough: it doubles the rate
    on some processors and halves it on others (measured on a Sapphire Rapids machine whose AMX was
    masked: 0.17 TFLOP/s in bf16, 0.31 in fp32), so there one product of each kind is timed. The two
    rates differ by about a factor of two in either direction, far beyond the timing noise.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    if _cpu_flag("_is_amx_tile_supported"):
        return True
    return _cpu_flag("_is_avx512_bf16_supported") and _bf16_beats_fp32()


def _cpu_flag(name: str) -> bool:
    flag = getattr(torch.cpu, name, None)  # private in torch 2.9-2.13, so it may be missing
    return bool(flag and flag())


def _bf16_beats_fp32(size: int = 512, rounds: int = 9) -> bool:
    """Compares the least processor time of `rounds` interleaved products, about 30 ms in all.

    Processor time, not clock time: on a busy machine the answer must be the same.
    """
    operands = {d: torch.ones(size, size, dtype=d) for d in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(operands, float("inf"))
    for _ in range(rounds):
        for dtype, operand in operands.items():
            start = time.process_time()
            torch.mm(operand, operand)
            best[dtype] = min(best[dtype], time.process_time() - start)
    return best[torch.bfloat16] < 0.8 * best[torch.float32]

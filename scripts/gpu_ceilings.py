"""Measure a machine's best rates: copies, large products, and the products of Muon's step.

python scripts/gpu_ceilings.py [size=8192] [results_dir=results]

Writes ceilings/<GPU>.json: bytes copied per second (read and written), FLOP/s of a square product
by dtype, and for the shapes of GPT-2 small's hidden matrices, in bf16, the FLOP/s of bmm and of
baddbmm, which copies its first matrix, by the number of stacked elements.
"""

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.measuring import meter
from bench.records import record
from bench.records.origin import COMMIT, slug

CALLS = 20
SHAPES = ((768, 768), (768, 3072))
STACKS = tuple(2**power for power in range(23, 28))  # elements
DTYPES = ("bf16", "fp16", "tf32", "fp32")
TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> int:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    size, device = int(given.get("size", 8192)), "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(given.get("results_dir", "results")) / "ceilings"
    folder.mkdir(parents=True, exist_ok=True)
    stacks = [elements * size**2 // 8192**2 for elements in STACKS]
    shapes = [(rows * size // 8192, columns * size // 8192) for rows, columns in SHAPES]
    found: dict[str, Any] = {
        "device": device,
        "calls": CALLS,
        "copy_bytes_per_second": copied(2 * size**2, device),
        "size": size,
        "flops_per_second": {dtype: squared(size, dtype, device) for dtype in DTYPES},
        "stacks": [stacked(shape, many, device) for shape in shapes for many in stacks],
        "environment": {
            "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "commit": os.environ.get(COMMIT),
        },
    }
    record.write_json(folder / f"{slug(found['environment']['gpu'] or 'cpu')}.json", found)
    rates = ", ".join(f"{t} {rate / 1e12:.3g}" for t, rate in found["flops_per_second"].items())
    print(f"copy {found['copy_bytes_per_second'] / 1e12:.3g} TB/s; TFLOP/s: {rates}")
    return 0


def seconds(work: Callable[[], object], device: str) -> float:
    """Mean seconds of a call, over CALLS submitted one after another."""
    for _ in range(3):
        work()
    return meter.seconds(device, work, CALLS)


def copied(elements: int, device: str) -> float:
    """Bytes per second, read and written."""
    source = torch.empty(elements, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device)


def squared(size: int, dtype: str, device: str) -> float:
    """FLOP/s of a size x size product of random matrices."""
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    a, b = torch.randn(2, size, size, device=device).to(TORCH.get(dtype, torch.float32))
    c = torch.empty_like(a)
    return 2 * size**3 / seconds(lambda: torch.mm(a, b, out=c), device)


def stacked(shape: tuple[int, int], elements: int, device: str) -> dict[str, Any]:
    """X X^T, and b A + c A A of its n x n result A, for a stack with this many elements."""
    rows, columns = shape
    many = max(1, elements // (rows * columns))
    x = torch.randn(many, rows, columns, device=device, dtype=torch.bfloat16)
    a = torch.bmm(x, x.mT) / columns
    flops = 2 * many * rows**2
    return {
        "shape": [rows, columns],
        "matrices": many,
        "xxt_flops_per_second": flops * columns / seconds(lambda: torch.bmm(x, x.mT), device),
        "square_bmm_flops_per_second": flops * rows / seconds(lambda: torch.bmm(a, a), device),
        "square_baddbmm_flops_per_second": flops
        * rows
        / seconds(lambda: torch.baddbmm(a, a, a, beta=-4.775, alpha=2.0315), device),
    }


if __name__ == "__main__":
    sys.exit(main())

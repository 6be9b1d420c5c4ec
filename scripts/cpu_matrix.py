"""Run the tests about numbers (marker cpu) as on other processors, and on a busy one.

python scripts/cpu_matrix.py

A cell of the matrix is an instruction set that the processor supports, one thread or two, and an
answer of `auto`. Prints one line per cell; exit status 1 if one failed.
"""

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.records.origin import cpu_name
from optimizers.precision import bf16_pays

ROOT = Path(__file__).resolve().parent.parent
# For torch's own kernels, oneDNN's products and MKL's; the last is everything the processor has.
SETS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "AVX-512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "MKL compatible": {"MKL_CBWR": "COMPATIBLE"},
    "all": {},
}
SPIN = "while True: pass"


def cells() -> list[tuple[str, int, str, bool]]:
    """Instruction set, threads, the answer of `auto`, whether others keep all cores busy."""
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    names = [name for name in SETS if wide or name != "AVX-512"]
    found = [(name, threads, "slower", False) for name in names for threads in (1, 2)]
    return [*found, ("all", 1, "faster", False), ("all", 1, "faster", True)]


def run(name: str, threads: int, answer: str, busy: bool) -> subprocess.CompletedProcess:
    environment = os.environ | SETS[name] | {"OMP_NUM_THREADS": str(threads), "BF16": answer}
    environment["OMP_WAIT_POLICY"] = "passive"  # waiting threads leave the core to others
    command = [sys.executable, "-m", "pytest", "-m", "cpu", "-n", str(max(1, 2 // threads))]
    with ExitStack() as others:
        for _ in range((os.cpu_count() or 1) if busy else 0):
            spin = others.enter_context(subprocess.Popen([sys.executable, "-c", SPIN]))
            others.callback(spin.kill)
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    said = "faster" if bf16_pays("cpu") else "slower"
    print(f"{cpu_name()}: {torch.backends.cpu.get_cpu_capability()}, bf16 products are {said}")
    failed = 0
    for name, threads, answer, busy in cells():
        began = time.monotonic()
        done = run(name, threads, answer, busy)
        failed += done.returncode != 0
        print(
            f"{'failed' if done.returncode else 'passed'}  {name}, {threads} "
            f"thread{'s' * (threads > 1)}, bf16 taken as {answer}{', busy' * busy}: "
            f"{done.stdout.strip().splitlines()[-1]}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if done.returncode:
            print(done.stdout, done.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

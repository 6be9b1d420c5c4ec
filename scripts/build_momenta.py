"""Build the shipped momenta, results/ortho/momenta/: a matrix per kind of layer of trained runs.

python scripts/build_momenta.py results/runs/CELL …

From each run it takes the hidden tensors of the middle layer at the last saved step, in fp16, each
divided by its largest entry, because only directions count. If they exceed LIMIT bytes, the largest
are left out. `scripts/reproduce.sh momenta` trains the runs first.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.laboratory import momentum
from bench.records import record

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "ortho" / "momenta"
LIMIT = 2**20


def main(runs: list[str]) -> int:
    if not runs:
        print(__doc__)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    for run in map(Path, runs):
        saved = momentum.steps(run)
        if not saved:
            print(f"{run}: has no momentum")
            continue
        file = saved[-1]
        known = record.read(run) or {}
        target = FOLDER / f"{known.get('model', run.name)}-{file.stem}.safetensors"
        tensors, metadata = sample(file)
        save_file(tensors, target, metadata)
        print(
            f"{target.relative_to(ROOT)}: {target.stat().st_size:,} bytes, {len(tensors)} tensors"
        )
    return 0


def sample(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The selected tensors, and what the laboratory needs to read them: `routing` and `views`."""
    with momentum.opened(file) as saved:
        rows = momentum.routing(file, saved.metadata() or {})
        hidden = {row["name"]: row for row in rows if row["role"] == "hidden"}
        layers = sorted({k for name in hidden if (k := momentum.layer_of(name)) is not None})
        middle = layers[len(layers) // 2]
        kept: dict[str, Tensor] = {}
        whole = {name: saved.get_tensor(name) for name in hidden
                 if momentum.layer_of(name) == middle}  # fmt: skip
        for name, tensor in sorted(whole.items(), key=lambda item: item[1].numel()):
            if 2 * sum(t.numel() for t in [*kept.values(), tensor]) <= LIMIT:
                kept[name] = (tensor / tensor.abs().max()).to(torch.float16)
        views: list[dict[str, Any]] = [
            entry for entry in momentum.views(saved) if set(entry["names"]) <= kept.keys()
        ]
    routing = [{key: hidden[name][key] for key in ("name", "role", "reason")} for name in kept]
    return kept, {"routing": json.dumps(routing), "views": json.dumps(views)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A notebook as plain data, and its cells as one plain Python program: no Jupyter is needed.

Its outputs are made anew by `jupyter nbconvert --to notebook --execute --inplace FILE`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.commands import ROOT

OWN_MODEL = ROOT / "docs" / "own_model.ipynb"


def cells(kind: str, file: Path = OWN_MODEL) -> list[dict]:
    """kind: code or markdown."""
    every = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in every if cell["cell_type"] == kind]


def text(cell: dict) -> str:
    return "".join(cell["source"])


def program(file: Path = OWN_MODEL) -> str:
    return "\n\n".join(map(text, cells("code", file)))


def run(folder: Path, file: Path = OWN_MODEL) -> subprocess.CompletedProcess:
    """All cells, in order, in a process of its own that works in the folder."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", program(file)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=1200,  # a busy machine fails none
    )

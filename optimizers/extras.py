"""The packages of other people's optimizers, which are optional extras of this project.

A copy of `optimizers/` in another project has no such extras.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def missing(error: Exception) -> str | None:
    """What to do about a failed import; None unless one of the extras has the package.

    A requirement and the package that it installs have the same name, except for - and _.
    """
    if not isinstance(error, ModuleNotFoundError):
        return None
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8")) if PYPROJECT.is_file() else {}
    extras = project.get("project", {}).get("optional-dependencies", {})
    for extra, requirements in extras.items():
        for requirement in requirements:
            match = re.match(r"[\w-]+", requirement)
            assert match is not None  # a requirement begins with its package
            name = match[0]
            if name.replace("-", "_") == error.name:
                return f"the package {name} is not installed; pip install -e '.[{extra}]'"
    return None

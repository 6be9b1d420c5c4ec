"""Tells the user that torch is loading, which takes seconds."""

import os
import sys


def torch() -> None:
    """Call before the first import of torch; the leading process prints one line, once."""
    if "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        print("loading torch", file=sys.stderr, flush=True)

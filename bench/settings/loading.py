"""torch takes seconds to load: whoever waits is told."""

import os
import sys


def torch() -> None:
    """To be called before the first import of torch; its leading process says so, once."""
    if "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        print("loading torch", file=sys.stderr, flush=True)

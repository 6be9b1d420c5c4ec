"""`hybrid(model)`: Muon and AdamW as one optimizer. Import everything else from its own module."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optimizers.recipe import hybrid

__all__ = ["hybrid"]


def __getattr__(name: str) -> Any:
    """Import `hybrid` only when it is asked for: a single module then imports nothing else."""
    if name != "hybrid":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from optimizers.recipe import hybrid

    return hybrid

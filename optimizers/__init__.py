"""`hybrid(model)`: Muon and AdamW as one optimizer. All else is imported from its module."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optimizers.recipe import hybrid

__all__ = ["hybrid"]


def __getattr__(name: str) -> Any:
    """Looked up when it is asked for: whoever wants one module imports no more than that."""
    if name != "hybrid":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from optimizers.recipe import hybrid

    return hybrid

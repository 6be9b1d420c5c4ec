"""msign by every method: pure functions on stacks of matrices."""

from optimizers.orthogonalize.iteration import Orthogonalizer, msign, orthogonalize

__all__ = ["Orthogonalizer", "msign", "orthogonalize"]

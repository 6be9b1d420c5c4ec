"""Reading a model: the role of each parameter, and the matrices in it."""

from optimizers.structure.parameters import NO_STRUCTURE, Parameter, describe, mark

__all__ = ["NO_STRUCTURE", "Parameter", "describe", "mark"]

"""Which part of which weight a factor of a product shows, by its storage."""

from typing import NamedTuple

from torch import Tensor, nn


class Piece(NamedTuple):
    """The part of a weight that a factor (..., in, out) shows.

    rows: rows of the map, in the order of the factor's outputs, if all inputs are shown; parts: the
    (dimension, first, length) that are shown, empty for the whole weight.
    """

    weight: Tensor
    layout: str
    rows: list[int]
    parts: tuple[tuple[int, int, int], ...]


class Weights:
    """The parameters of a model that may be matrices, indexed by their storage."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters: dict[int, list[Tensor]] = {}
        for p in model.parameters():
            if p.ndim in (2, 3) and p.numel() and not p.is_meta:
                self.parameters.setdefault(p.untyped_storage().data_ptr(), []).append(p)

    def is_whole(self, tensor: object) -> bool:
        return isinstance(tensor, nn.Parameter) and tensor.ndim == 2

    def piece(self, factor: Tensor) -> Piece | None:
        for weight in self.parameters.get(factor.untyped_storage().data_ptr(), ()):
            flat = _flat(weight, factor)
            if flat is not None:
                return flat
            offset = int(factor.storage_offset()) - int(weight.storage_offset())
            stored, shown = weight.stride()[-2:], factor.stride()[-2:]
            if not 0 <= offset < weight.numel():
                continue
            for layout in ("matrix", "transposed"):
                if shown == (stored[::-1] if layout == "matrix" else stored):
                    found = _piece(weight, factor, layout, offset)
                    if found is not None:
                        return found
        return None


def _flat(weight: Tensor, factor: Tensor) -> Piece | None:
    """A weight of three dimensions with two neighbours folded into one (that of all heads)."""
    if weight.ndim != 3 or factor.ndim != 2 or not weight.is_contiguous():
        return None
    forms = (
        (weight.flatten(1), "kernel_transposed"),
        (weight.flatten(1).T, "kernel"),
        (weight.flatten(0, 1), "table"),
        (weight.flatten(0, 1).T, "batch"),
    )
    for form, layout in forms:
        same = (form.shape, form.stride()) == (factor.shape, factor.stride())
        if same and form.data_ptr() == factor.data_ptr():
            rows = [] if layout == "batch" else list(range(factor.shape[-1]))
            return Piece(weight, layout, rows, ())
    return None


def _piece(weight: Tensor, factor: Tensor, layout: str, offset: int) -> Piece | None:
    wide, deep = weight.shape[-2:]
    inputs, outputs = factor.shape[-2:]
    sizes = (outputs, inputs) if layout == "matrix" else (inputs, outputs)
    starts = [_start(weight, offset)]
    if weight.ndim == 2 and factor.ndim == 3 and factor.stride(0):
        starts = [_start(weight, offset + i * factor.stride(0)) for i in range(factor.shape[0])]
    if any(r + sizes[0] > wide or c + sizes[1] > deep for r, c in starts):
        return None
    out = 0 if layout == "matrix" else 1
    whole_inputs = sizes[1 - out] == (wide, deep)[1 - out]
    rows = [start[out] + i for start in starts for i in range(outputs)] if whole_inputs else []
    parts: tuple[tuple[int, int, int], ...] = ()
    if sizes != (wide, deep) and weight.ndim == 2:
        cut = 0 if sizes[0] != wide else 1
        if sizes[1 - cut] != (wide, deep)[1 - cut]:
            return None  # only a block of it
        parts = tuple((cut, start[cut], sizes[cut]) for start in starts)
    name = layout if weight.ndim == 2 else layout.replace("matrix", "batch")
    name = "batch_transposed" if name == "transposed" and weight.ndim == 3 else name
    return Piece(weight, name, rows, parts)


def _start(weight: Tensor, offset: int) -> tuple[int, int]:
    """The row and column of an entry of the storage."""
    if weight.ndim == 3 and weight.stride(0):
        offset %= weight.stride(0)
    first, second = weight.stride()[-2:]
    if first >= second:
        return offset // first, offset % first // second
    return offset % second // first, offset // second

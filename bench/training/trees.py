"""A tree of tensors and plain data, stored as JSON with the tensors apart, for checkpoints."""

from typing import Any

import torch


def encode(node: Any, path: tuple, tensors: dict[str, torch.Tensor]) -> Any:
    """A node as JSON; its tensors are added to `tensors`, named by their path.

    Lists and scalars stay as they are; a dict becomes a list of pairs, since JSON would make its
    int keys strings. Python writes and reads floats exactly, NaN and infinities included.
    """
    if isinstance(node, torch.Tensor):
        if node.layout is not torch.strided:
            raise TypeError(f"{_join(path)}: a {node.layout} tensor cannot be saved")
        name = _join(path)
        while name in tensors:  # {1: a, "1": b}
            name += "'"
        tensors[name] = node.detach()
        return {"tensor": name}
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, int | str):
                raise TypeError(f"{_join(path)}: key {key!r} is neither int nor str")
        return {"dict": [[key, encode(node[key], (*path, key), tensors)] for key in node]}
    if isinstance(node, list | tuple | set):
        items = [encode(item, (*path, i), tensors) for i, item in enumerate(node)]
        if isinstance(node, list):
            return items
        return {"set" if isinstance(node, set) else "tuple": items}
    if isinstance(node, bytes):
        return {"bytes": node.hex()}
    if isinstance(node, torch.dtype):
        return {"dtype": str(node).removeprefix("torch.")}
    if node is None or isinstance(node, int | float | str):
        return node
    raise TypeError(f"{_join(path)}: a {type(node).__name__} cannot be saved in a checkpoint")


def decode(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, list):
        return [decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(decode(item, tensors) for item in content)
    if kind == "set":
        return {decode(item, tensors) for item in content}
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dtype":
        return getattr(torch, content)
    return {key: decode(value, tensors) for key, value in content}


def _join(path: tuple) -> str:
    """`("model", "weight", 0)` as `/model/weight/0`, in ASCII."""
    return "".join(f"/{part}" for part in path).encode("ascii", "backslashreplace").decode()

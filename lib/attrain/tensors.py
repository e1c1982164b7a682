"""Small things about tensors that every room needs, and that know no model."""

import copy
from collections.abc import Callable, MutableMapping
from typing import Any

from torch import Tensor


def tensors(value: object) -> list[Tensor]:
    """All tensors of nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [t for member in value if isinstance(member, (Tensor, tuple, list, dict)) for t in tensors(member)]


def mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Nested tuples, lists and dicts, each of its own type, with every tensor t replaced by change(t).

    Example:
        >>> import torch
        >>> mapped(len, {"a": torch.zeros(3), "b": [torch.zeros(2), "c"]})
        {'a': 3, 'b': [2, 'c']}
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        members = [mapped(change, member) for member in value]
        return type(value)(*members) if hasattr(value, "_fields") else type(value)(members)  # a namedtuple
    if isinstance(value, MutableMapping):
        found = copy.copy(value)
        for key, member in value.items():
            found[key] = mapped(change, member)
        return found
    return value


def logits_of(output: Any) -> Any:
    """What a model returned, or the `.logits` of an object, as models of transformers return it."""
    return getattr(output, "logits", output)


def finite(value: Tensor) -> bool:
    """Whether all numbers are finite; a finite sum says so at once."""
    return bool(value.detach().sum().isfinite() or value.isfinite().all())


def along(vector: Tensor, dim: int, ndim: int) -> Tensor:
    """A vector with one number a channel, in the shape that goes with activations of `ndim` dimensions."""
    return vector if vector.ndim == 0 else vector.view(-1, *[1] * (ndim - dim % ndim - 1))

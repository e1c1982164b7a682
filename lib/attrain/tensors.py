"""Small tools on tensors and on nested structures of them."""

from collections.abc import Callable

from torch import Tensor


def tensors(value) -> list[Tensor]:
    """All tensors of nested tuples, lists and dicts, in their order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [t for v in value if isinstance(v, (Tensor, tuple, list, dict)) for t in tensors(v)]


def mapped(change: Callable[[Tensor], object], value):
    """Nested tuples, lists and dicts with every tensor t replaced by change(t)."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: mapped(change, v) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(mapped(change, v) for v in value)
    return value


def finite(value: Tensor) -> bool:
    """Whether all numbers are finite; a finite sum says so at once."""
    return bool(value.detach().sum().isfinite() or value.isfinite().all())


def along(vector: Tensor, dim: int, ndim: int) -> Tensor:
    """A vector with one number a channel, in the shape that goes with activations of `ndim` dimensions."""
    return vector if vector.ndim == 0 or dim == -1 else vector.view(-1, *[1] * (ndim - 2))

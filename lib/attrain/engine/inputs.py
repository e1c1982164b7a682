"""What goes into a model: one tensor, a tuple or a dict of them, and arguments that are handed through."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attrain.tensors import finite, tensors

Form = Tensor | tuple | dict


class Inputs:
    """The explained inputs of a model, whatever their form.

    Args:
        x: a tensor, or a tuple or dict of tensors (N, ...).
        args, kwargs: what the model is called with besides.

    Attributes:
        tensors: the inputs, plain tensors, in their order.
    """

    def __init__(self, x: Form, args: Sequence = (), kwargs: dict | None = None):
        self.keys = list(x) if isinstance(x, dict) else None
        self.single = isinstance(x, Tensor)
        values = list(x.values()) if isinstance(x, dict) else [x] if self.single else list(x)
        self.tensors = [v.as_subclass(Tensor) for v in values]
        self.args, self.kwargs = tuple(args), dict(kwargs or {})
        self._versions = [(t, t._version) for t in tensors((self.args, self.kwargs)) if not t.is_inference()]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def replaced(self, tensors: Sequence[Tensor]) -> "Inputs":
        """The same form with other tensors."""
        self.check_arguments()
        return Inputs(self.formed(tensors), self.args, self.kwargs)

    def check_arguments(self) -> None:
        """Raise ValueError if the model has written into one of its further arguments: the next pass finds another."""
        for value, version in self._versions:
            if value._version != version:
                raise ValueError(
                    f"the model changes a tensor of args or kwargs in place, of shape {tuple(value.shape)}, so that "
                    "each pass finds another: write it out of place, or give a model that copies it first"
                )

    def formed(self, values: Sequence):
        """Values, one an input, in the form of x."""
        if self.single:
            return values[0]
        return tuple(values) if self.keys is None else dict(zip(self.keys, values))

    def without_maps(self, asked: bool):
        """What stands for maps that are not made: no numbers; nothing for whole numbers, or where one was asked for."""
        return self.formed(
            [None if asked or not t.is_floating_point() else t.new_empty(len(t), 0) for t in self.tensors]
        )

    def call(self, model: Callable, tensors: Sequence[Tensor]):
        """The model's output for these tensors."""
        self.check_arguments()
        if self.keys is not None:
            return model(*self.args, **dict(zip(self.keys, tensors)), **self.kwargs)
        return model(*tensors, *self.args, **self.kwargs)


def check_inputs(x) -> None:
    """Raise unless x is a tensor, or a tuple or dict of tensors, of as many samples, finite or whole numbers.

    Raises:
        TypeError: another type.
        ValueError: no inputs, unequal numbers of samples, NaN or infinite values.
    """
    if not isinstance(x, (Tensor, tuple, dict)):
        raise TypeError(
            f"x must be a tensor (N, ...), or a tuple or dict of such tensors, got {_kind(x)}; of an array or image "
            "make one with torch.as_tensor or torchvision.transforms.functional.to_tensor"
        )
    named = x.items() if isinstance(x, dict) else [("x", x)] if isinstance(x, Tensor) else enumerate(x)
    named = [(name if name == "x" else f"x[{name!r}]", value) for name, value in named]
    if not named:
        raise ValueError(f"x must hold at least one tensor, got an empty {type(x).__name__}")
    for name, value in named:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {_kind(value)}")
        if value.ndim == 0:
            raise ValueError(f"{name} must have a dimension of samples (N, ...), got a single number")
        if value.is_complex():
            raise TypeError(
                f"{name} must be floating point or whole numbers, got {value.dtype}; see torch.view_as_real"
            )
        if value.is_floating_point() and not finite(value):
            raise ValueError(f"{name} holds NaN or infinite values; a map of it would be meaningless")
    sizes = {name: len(value) for name, value in named}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the inputs must have as many samples each, got {sizes}")


def _kind(value) -> str:
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")


def others(value: Tensor) -> list[Tensor]:
    """Other inputs of about the same values: in another order within each sample, and nearer to their mean or to 0."""
    flat = value.detach().flatten(1) if value.ndim > 1 else value.detach()[:, None]
    order = torch.arange(flat.shape[1] - 1, -1, -1, device=value.device).roll(flat.shape[1] // 3)
    flat = flat[:, order]
    if not value.is_floating_point():
        return [flat.reshape(value.shape), flat.flip(1).roll(1, 1).reshape(value.shape)]
    nearer = flat.mean(1, keepdim=True) + 0.25 * (flat - flat.mean(1, keepdim=True))
    return [(flat * 0.875).reshape(value.shape), nearer.reshape(value.shape)]

"""Settings that are numbers."""

import math
from typing import Any


def number(name: str, value: Any, *, whole: bool = False, finite: bool = True) -> Any:
    """A setting as it was given, if it is a number, also of numpy or a tensor; in which range, who takes it says.

    Raises:
        TypeError: anything else, as text, None, a bool or a list; with `whole` also a number that is not an int.
        ValueError: it is infinite, unless that is allowed.

    Example:
        >>> number("epsilon", "0.1")
        Traceback (most recent call last):
        TypeError: epsilon must be a number, got '0.1'
    """
    single = hasattr(value, "item") and math.prod(getattr(value, "shape", (0,))) == 1
    plain = value.item() if single else value
    if isinstance(plain, bool) or not isinstance(plain, int if whole else (int, float)):
        raise TypeError(f"{name} must be a {'whole ' * whole}number, got {value!r}")
    if finite and plain in (math.inf, -math.inf):
        raise ValueError(f"{name} must be finite, got {value}")
    return value


def count(name: str, value: Any) -> int:
    """A number of things, at least 1, as an int; also of numpy or a tensor.

    Raises:
        TypeError: anything else.
        ValueError: it is less than 1.

    Example:
        >>> import torch
        >>> count("samples", torch.tensor(3))
        3
    """
    if number(name, value, whole=True) < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")
    return int(value)

"""Settings that are numbers."""

import math
import numbers
from typing import Any

from torch import Tensor


def number(name: str, value: Any, *, whole: bool = False) -> Any:
    """A setting as it was given, if it is a finite number or NaN; in which range it may lie, who takes it says.

    Raises:
        TypeError: anything else, as text, None, a bool or a list; with `whole` also a number that is not an int.
        ValueError: it is infinite.

    Example:
        >>> number("epsilon", "0.1")
        Traceback (most recent call last):
        TypeError: epsilon must be a number, got '0.1'
    """
    kind, single = numbers.Integral if whole else numbers.Real, isinstance(value, Tensor) and value.numel() == 1
    if isinstance(value, bool) or not (isinstance(value, kind) or (single and not whole)):
        raise TypeError(f"{name} must be a {'whole ' * whole}number, got {value!r}")
    if math.isinf(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return value

"""What a method is: a value that names a mode, with its table of rules, and its settings."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import ClassVar, Self

import torch
from torch import Tensor

from attrain.engine.inputs import Form, Inputs
from attrain.engine.mode import Mode, Tensors
from attrain.engine.passes import Request, one_pass
from attrain.engine.state import undone
from attrain.explanation import Explanation
from attrain.tensors import mapped, tensors


class Method:
    """One pass with the method's rules. Methods are values: equal if all settings are, tensors by their numbers.

    A method of one's own is a frozen dataclass derived from this with `mode`, which makes a
    `attrain.engine.mode.Mode` with a table of rules, or with `explanation`, which makes several passes.

    Attributes:
        maps_apart: whether the K maps of a sample are of different rules, so that each has a natural range of its own.
        maps_whole_numbers: whether whole numbers (token ids) as x have a map too, as they have without a gradient.
    """

    maps_apart: ClassVar[bool] = False
    maps_whole_numbers: ClassVar[bool] = False

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and all(map(_equal, vars(self).values(), vars(other).values()))

    def __hash__(self) -> int:
        return hash((type(self), *(v for v in vars(self).values() if not tensors(v) and not isinstance(v, dict))))

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        """The mode of one pass: see `attrain.engine.mode.Mode` for the arguments."""
        raise NotImplementedError(f"{type(self).__name__} says neither what its mode nor what its explanation is")

    def explanation(self, request: Request) -> Explanation:
        """The maps that are asked for."""
        return one_pass(request, self.mode)

    def check(self, inputs: Inputs) -> None:
        """Raise if a setting, such as a reference, does not fit the inputs."""

    def rows(self, rows: slice, x: Form) -> Self:
        """The method for some of x's samples: settings that have a row a sample are cut too."""
        return self


def name_of_given(value: object) -> str:
    """What stands where a value is wanted, for a message; of a class also that it is to be called."""
    name = getattr(value, "__name__", repr(value))
    return f"{name}: call it, {name}()" if isinstance(value, type) else name


def references_of(reference, inputs: Inputs) -> list[list[Tensor]]:
    """References one by one, each a list of (1, ...) or (N, ...), one an input; whole numbers for whole numbers.

    Args:
        reference: a number for all, or in the form of the inputs numbers and tensors (1, ...), (N, ...), (R, 1, ...),
            (R, N, ...).

    Raises:
        ValueError: a shape or form that does not fit, NaN, infinite values; a missing reference for whole numbers.
    """
    if inputs.single or not isinstance(reference, (tuple, list, dict)):
        given = [reference] * len(inputs.tensors)
    else:
        given = list(reference.values()) if isinstance(reference, dict) else list(reference)
        if isinstance(reference, dict) != (inputs.keys is not None) or len(given) != len(inputs.tensors):
            raise ValueError("reference must be a number or have the form of x: one reference an input")
        if inputs.keys is not None:
            given = [reference[k] for k in inputs.keys]
    each = [_references(r, x) for r, x in zip(given, inputs.tensors)]
    count = max(map(len, each))
    if any(len(r) not in (1, count) for r in each):
        raise ValueError(f"all inputs must have as many references each, got {[len(r) for r in each]}")
    return [[r[k % len(r)] for r in each] for k in range(count)]


def _references(reference, x: Tensor) -> list[Tensor]:
    if isinstance(reference, Tensor) and reference.ndim == 0:
        reference = reference.item()
    if not isinstance(reference, Tensor):
        if not isinstance(reference, (int, float)):
            raise TypeError(f"reference must be a number or a tensor, got {type(reference).__name__}")
        if not math.isfinite(reference):
            raise ValueError(f"reference must be finite, got {reference}")
        if not x.is_floating_point() and reference != int(reference):
            raise ValueError(f"reference of whole numbers (token ids) must be a whole number, got {reference}")
        return [torch.full_like(x[:1] if len(x) else x.new_empty(1, *x.shape[1:]), reference)]
    if not x.is_floating_point() and reference.is_floating_point():
        raise ValueError(f"reference of whole numbers (token ids) must be whole numbers, got {reference.dtype}")
    reference = reference.detach().as_subclass(Tensor).to(x)
    if reference.is_floating_point() and not torch.isfinite(reference).all():
        raise ValueError("reference holds NaN or infinite values")
    one, n = tuple(x.shape[1:]), len(x)
    if reference.ndim == x.ndim and reference.shape[1:] == x.shape[1:] and len(reference) in (1, n):
        return [reference]
    if reference.ndim == x.ndim + 1 and reference.shape[1:] in ((1, *one), (n, *one)) and len(reference):
        return list(reference)
    raise ValueError(
        f"reference must be a number or have shape {(1, *one)}, {(n, *one)}, {('R', 1, *one)} or "
        f"{('R', n, *one)} for an input of shape {tuple(x.shape)}, got {tuple(reference.shape)}"
    )


def cut_reference(reference, rows: slice, x):
    """A reference for some of the samples: where it has a row a sample, these rows."""
    if isinstance(reference, (tuple, list)):
        return type(reference)(cut_reference(r, rows, v) for r, v in zip(reference, x))
    if isinstance(reference, dict):
        return {k: cut_reference(r, rows, x[k]) for k, r in reference.items()}
    if not isinstance(reference, Tensor) or not isinstance(x, Tensor) or len(x) == 1:
        return reference
    if reference.ndim == x.ndim and len(reference) == len(x):
        return reference[rows]
    if reference.ndim == x.ndim + 1 and reference.shape[1] == len(x):
        return reference[:, rows]
    return reference


def mean_reference(references: list[list[Tensor]]) -> list[Tensor]:
    """For a gradient at x alone, which is linear in the reference."""
    return [sum(each) / len(each) for each in zip(*references)]


def apart(model: Callable, run: Callable, values: Sequence) -> Iterator:
    """run(value) for each value, each on the model as it was before; what the last one does to it stays."""
    for number, value in enumerate(values):
        with nullcontext() if number + 1 == len(values) else undone(model):
            found = run(value)
        yield found


def mean_explanation(explanations: Iterable[Explanation]) -> Explanation:
    """The mean of explanations of one input, with the first one's logits; one at a time is kept."""
    total, count = None, 0
    for explanation in explanations:
        total = explanation if total is None else total._replace(**_added(total, explanation))
        count += 1
    if count == 1:
        return total
    parts = ("heatmap", "layers", "delta")
    return total._replace(**{name: mapped(lambda t: t / count, getattr(total, name)) for name in parts})


def _added(a: Explanation, b: Explanation) -> dict:
    def add(x, y):
        if isinstance(x, dict):
            return {key: add(x[key], y[key]) for key in x}
        if isinstance(x, (tuple, list)):
            return tuple(map(add, x, y))
        return None if x is None else x + y

    return {name: add(getattr(a, name), getattr(b, name)) for name in ("heatmap", "layers", "delta")}


def _equal(a, b) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b

"""Maps without a backward pass: what the explained number loses, or gains, when a part of the input is replaced."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import ClassVar, Self

import torch
from torch import Tensor

from attrain.engine.inputs import Form, Inputs, others
from attrain.engine.passes import Request, plain_output
from attrain.engine.state import undone
from attrain.explanation import Explanation
from attrain.methods.method import Method, cut_reference, references_of
from attrain.numbers import count
from attrain.tensors import mapped, tensors

Window = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class Occlusion(Method):
    """What the explained number loses when a window of the input is replaced by the reference (Zeiler, Fergus 2014).

    f(x) − f(x with the reference in the window), for every place of the window; each element's map is the mean over
    the windows that hold it. The last window of a dimension is cut off at its end, so that every element is in one.
    No gradient is needed: also of models with rounding, samplers or trees inside. Token ids have maps too; a reference
    for them is a token id, as that of [MASK].

    Args:
        window: a size for each of the last dimensions of x, and those before are replaced whole; an int for every
            dimension after samples and channels, all channels together: squares of an image (N, C, H, W), stretches of
            a sequence (N, C, L); of (N, F) that many features. Of a tuple or dict of inputs an int, or the same form.
        stride: from window to window, at most the window; shaped as it. None: windows side by side.
        reference: as for `DeepLift`; over several the maps are averaged.
        batch_size: how many perturbed samples are in memory, and go through the model, at once; at least N do, and no
            more where a trial shows that the model mixes samples, as batch norm does in training mode. What belongs
            to the samples (tensors of args and kwargs whose first size is N) is repeated with them.

    There are no maps at layers, and `Explanation.delta` is None. With create_graph the maps keep all passes' graphs.

    Raises:
        TypeError, ValueError: a window larger than x, a stride larger than the window, layers, or a batch_size < 1.

    Example:
        >>> from attrain import explain
        >>> model = lambda x: x[:, :1] * x[:, 1:2] + x[:, 2:]
        >>> explain(model, torch.tensor([[2.0, 3.0, 1.0]]), 0, Occlusion(window=1)).heatmap
        tensor([[6., 6., 1.]])
        >>> explain(model, torch.tensor([[2.0, 3.0, 1.0]]), 0, Occlusion(window=2, stride=1)).heatmap
        tensor([[6.0000, 6.5000, 7.0000]])
    """

    window: Window | tuple | dict
    stride: Window | tuple | dict | None = None
    reference: float | Tensor | tuple | dict = 0.0
    batch_size: int = 64

    maps_whole_numbers: ClassVar[bool] = True

    def __post_init__(self):
        count("batch_size", self.batch_size)

    def check(self, inputs: Inputs) -> None:
        references_of(self.reference, inputs)
        self._windows(inputs)

    def rows(self, rows: slice, x: Form) -> Self:
        return replace(self, reference=cut_reference(self.reference, rows, x))

    def explanation(self, request: Request) -> Explanation:
        perturbed, inputs = _Perturbed(request, self.batch_size), request.inputs
        maps = [_zeros(perturbed.scores, x) for x in inputs.tensors]
        references = references_of(self.reference, inputs)
        for number, windows in enumerate(self._windows(inputs) if request.at_input else []):
            covered = sum(_ones_in(window, inputs.tensors[number]) for window in windows)
            for reference in references:
                change = partial(_occluded, inputs.tensors, number, reference[number], windows)
                for k, scores in perturbed.scores_of(change, len(windows)):
                    lost = perturbed.scores - scores
                    part = maps[number][(..., *windows[k])]
                    part += lost.reshape(*lost.shape, *[1] * (part.ndim - lost.ndim))
            maps[number] = maps[number] / (covered * len(references))
        return perturbed.explanation(maps)

    def _windows(self, inputs: Inputs) -> list[list[tuple[slice, ...]]]:
        """The windows of each input, as slices of its dimensions after the samples."""
        sizes, strides = _given("window", self.window, inputs), _given("stride", self.stride, inputs)
        return [_places(x, w, s) for x, w, s in zip(inputs.tensors, sizes, strides)]


@dataclass(frozen=True)
class InSilicoMutagenesis(Method):
    """How the explained number changes with every substitution of one letter of a sequence: f(x with it) − f(x).

    Args:
        normalisation: "change": the change as it is, 0 at the letters that are there; "centred": at each position less
            its mean over the letters, so that a letter that is needed stands out positive.
        batch_size: as for `Occlusion`.

    x is one tensor, one-hot (N, A, L), as DNA with A = 4; a position that is unknown may be all 0, and is then
    given each letter in turn. There are no maps at layers, and `Explanation.delta` is None.

    Raises:
        TypeError, ValueError: x that is not one-hot, layers, or a batch_size < 1.

    Example:
        >>> from attrain import explain
        >>> model = lambda x: x[:, 0].sum(1, keepdim=True)  # counts the first letter
        >>> x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # A C
        >>> explain(model, x, 0, InSilicoMutagenesis()).heatmap
        tensor([[[ 0.,  1.],
                 [-1.,  0.]]])
    """

    maps_whole_numbers: ClassVar[bool] = True

    normalisation: str = "change"
    batch_size: int = 64

    def __post_init__(self):
        count("batch_size", self.batch_size)
        if self.normalisation not in ("change", "centred"):
            raise ValueError(f'normalisation must be "change" or "centred", got {self.normalisation!r}')

    def check(self, inputs: Inputs) -> None:
        if not inputs.single:
            raise ValueError(
                f"InSilicoMutagenesis substitutes letters of one sequence tensor (N, A, L), got {len(inputs.tensors)} "
                "inputs: hand the others to the model by args or kwargs"
            )
        (x,) = inputs.tensors
        if x.ndim != 3 or not bool(((x == 0) | (x == 1)).all() and (x.sum(1) <= 1).all()):
            raise ValueError(
                f"InSilicoMutagenesis needs one-hot x (N, A, L), a single 1 or none at each position, got {_seen(x)}; "
                "of token ids take Occlusion"
            )

    def explanation(self, request: Request) -> Explanation:
        self.check(request.inputs)
        (x,) = request.inputs.tensors
        perturbed = _Perturbed(request, self.batch_size)
        changes = _zeros(perturbed.scores, x)
        places = list(product(range(x.shape[1]), range(x.shape[2]))) if request.at_input else []
        for k, scores in perturbed.scores_of(lambda k: [_substituted(x, *places[k])], len(places)):
            changes[(..., *places[k])] = scores - perturbed.scores
        if self.normalisation == "centred":
            changes = changes - changes.mean(-2, keepdim=True)
        return perturbed.explanation([changes])


# ---------------------------------------------------------------- scores of perturbed inputs


class _Perturbed:
    """The explained numbers of changed inputs, several changes of all samples in one forward pass.

    Attributes:
        scores: those of the inputs as they are, (N,) or (N, K).
        together: how many changes share a forward pass; 1 where the model mixes the samples of a batch, or keeps
            something of each.
    """

    def __init__(self, request: Request, batch_size: int):
        if request.layers:
            raise ValueError(
                f"a method that perturbs the input makes no maps at layers, got layers={request.layers}: "
                "choose a method with a backward pass"
            )
        self.request, self.inputs = request, request.inputs
        self.output = plain_output(request)
        self.score = request.score.fixed(self.output)
        self.scores = self.score(self.output)
        self.together = max(int(batch_size) // max(len(self.inputs), 1), 1)
        if self.together > 1 and not self._independent():
            self.together = 1

    def _run(self, inputs: Inputs):
        with torch.set_grad_enabled(self.request.create_graph), undone(self.request.model):
            return inputs.call(self.request.model, [t.clone() for t in inputs.tensors])

    @torch.no_grad()
    def _independent(self) -> bool:
        """Whether samples have the same numbers beside others, tried with other values as the others."""
        seen = self.output if self.score.callable else self.score.logits(self.output)
        if not _plain(seen) or any(t.ndim == 0 or len(t) != len(self.inputs) for t in tensors(seen)):
            return False
        other = [others(t)[0] for t in self.inputs.tensors]
        try:
            alone = [self.scores, self.score(self._run(self.inputs.replaced(other)))]
            beside = list(self._together([self.inputs.tensors, other]))
        except (RuntimeError, ValueError, IndexError, TypeError):  # one by one, what is wrong is said anyway
            return False
        close = lambda a, b: a.shape == b.shape and torch.allclose(a, b, 1e-4, 1e-5 * float(a.abs().max()))  # noqa: E731
        return not len(self.inputs) or all(map(close, alone, beside))

    def _together(self, changed: list[list[Tensor]]) -> Iterator[Tensor]:
        """The explained numbers of several changed inputs, from one forward pass."""
        self.inputs.check_arguments()
        n, count = len(self.inputs), len(changed)
        repeated = lambda t: t.repeat(count, *[1] * (t.ndim - 1)) if t.ndim and len(t) == n and count > 1 else t  # noqa: E731
        args, kwargs = mapped(repeated, self.inputs.args), mapped(repeated, self.inputs.kwargs)
        stacked = self.inputs.formed([torch.cat(each) for each in zip(*changed)])
        output = self._run(Inputs(stacked, args, kwargs))
        output = output if self.score.callable else self.score.logits(output)
        for first in range(0, n * count, n) if n else [0] * count:
            rows = slice(first, first + n)
            part = mapped(lambda t: t[rows], output) if count > 1 else output  # noqa: B023
            self.score.check(part)
            yield self.score(part)

    def scores_of(self, change: Callable[[int], list[Tensor]], count: int) -> Iterator[tuple[int, Tensor]]:
        """Each change's number and its explained numbers.

        Args:
            change: from its number to the changed inputs.
            count: how many changes there are.
        """
        for first in range(0, count, self.together):
            numbers = range(first, min(first + self.together, count))
            yield from zip(numbers, self._together([change(k) for k in numbers]))

    def explanation(self, maps: list[Tensor]) -> Explanation:
        """The maps in the form of the inputs."""
        if not self.request.at_input:
            maps = [x.new_empty(len(x), 0) for x in self.inputs.tensors]
        return Explanation(self.score.logits(self.output, self.scores), self.inputs.formed(maps), {}, None)


def _plain(output) -> bool:
    """Whether an output is a tensor, or plain tuples, lists and dicts of them, which can be cut sample by sample."""
    if type(output) in (tuple, list, dict):
        return all(map(_plain, output.values() if isinstance(output, dict) else output))
    return isinstance(output, (Tensor, int, float, str, type(None)))


def _zeros(scores: Tensor, x: Tensor) -> Tensor:
    """A map of zeros, (N, [K,] ...)."""
    return scores.new_zeros(*scores.shape, *x.shape[1:])


# ---------------------------------------------------------------- windows


def _given(name: str, value, inputs: Inputs) -> list:
    """A window or stride for each input."""
    if inputs.single or value is None or isinstance(value, int):
        return [value] * len(inputs.tensors)
    keys = inputs.keys or range(len(inputs.tensors))
    if isinstance(value, dict) != (inputs.keys is not None) or len(value) != len(keys):
        raise ValueError(f"{name} must be an int, or have the form of x, one an input, got {value!r}")
    try:
        return [value[key] for key in keys]
    except KeyError:
        raise ValueError(f"{name} must have x's keys {list(keys)}, got {list(value)}") from None


def _places(x: Tensor, window: Window, stride: Window | None) -> list[tuple[slice, ...]]:
    """All windows of an input."""
    shape = x.shape[1:]
    if not shape:
        raise ValueError(f"Occlusion needs x with dimensions after the samples, got {tuple(x.shape)}")
    sizes = _sizes("window", window, shape)
    strides = sizes if stride is None else _sizes("stride", stride, shape, like=sizes)
    if any(w > size for w, size in zip(sizes, shape)):
        raise ValueError(f"window {window!r} is larger than x of shape {tuple(x.shape)}")
    if any(s > w for s, w in zip(strides, sizes)):
        raise ValueError(f"stride {stride!r} leaves gaps between windows {window!r}: it must not be larger")
    axes = [
        [slice(start, min(start + w, size)) for start in range(0, max(-(-(size - w) // s), 0) * s + 1, s)]
        for size, w, s in zip(shape, sizes, strides)
    ]
    return list(product(*axes))


def _sizes(name: str, value: Window, shape: torch.Size, like: list[int] | None = None) -> list[int]:
    """A size for each dimension after the samples."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    sizes = [value] * max(len(shape) - 1, 1) if whole else value
    if not isinstance(sizes, (tuple, list)) or not all(type(s) is int and s >= 1 for s in sizes):
        raise ValueError(f"{name} must be a whole number >= 1, or one for each of the last dimensions, got {value!r}")
    if not 1 <= len(sizes) <= len(shape):
        raise ValueError(
            f"{name} must have 1 to {len(shape)} numbers for samples of shape {tuple(shape)}, got {value!r}"
        )
    before = len(shape) - len(sizes)
    return [*(like or shape)[:before], *sizes]


def _ones_in(window: tuple[slice, ...], x: Tensor) -> Tensor:
    found = torch.zeros(x.shape[1:], dtype=torch.float32, device=x.device)
    found[window] = 1
    return found


def _occluded(inputs: list[Tensor], number: int, reference: Tensor, windows: list, k: int) -> list[Tensor]:
    """The inputs, with the reference in a window of one of them."""
    x, window = inputs[number].clone(), (slice(None), *windows[k])
    x[window] = reference[window]
    return [*inputs[:number], x, *inputs[number + 1 :]]


# ---------------------------------------------------------------- letters


def _substituted(x: Tensor, letter: int, position: int) -> Tensor:
    x = x.clone()
    x[:, :, position] = 0
    x[:, letter, position] = 1
    return x


def _seen(x: Tensor) -> str:
    numbers = f" with values {x.min().item():.3g} to {x.max().item():.3g}" if x.numel() else ""
    return f"shape {tuple(x.shape)}{numbers}"

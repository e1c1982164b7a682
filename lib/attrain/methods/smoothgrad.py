"""SmoothGrad (Smilkov, Thorat, Kim, Viégas, Wattenberg 2017), around any method."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from attrain.engine.inputs import Form, Inputs
from attrain.engine.passes import Request, plain_output
from attrain.engine.state import undone
from attrain.explanation import Explanation
from attrain.methods.gradient import Gradient
from attrain.methods.method import Method, mean_explanation
from attrain.numbers import count, number


@dataclass(frozen=True, eq=False)
class SmoothGrad(Method):
    """The mean of a method's maps of inputs with Gaussian noise (Smilkov et al. 2017); their maps are of the gradient.

    `Explanation.logits` are those of the input without noise, which also has the choice of the predicted class; `delta`
    is the mean of the noisy inputs' deltas, which the mean map sums to, where the method has them.

    Args:
        method: any value of `attrain.methods`. Its references stay as they are, without noise.
        samples: ≥ 1 noisy inputs, one after another.
        noise: ≥ 0, standard deviation as a share of each sample's range, its largest less its smallest value, as in the
            paper (0.1 to 0.2 there); of several inputs each has its own range. Whole numbers stay as they are.
        seed: of the noise, which is then the same for a sample on any device and with any chunk_size; None draws from
            torch's generator.

    Raises:
        TypeError, ValueError: a method that is none, samples < 1, noise < 0, or only whole numbers as x.

    Example:
        >>> from attrain import explain
        >>> model = torch.nn.Linear(2, 1)
        >>> smooth = explain(model, torch.tensor([[1.0, 0.0]]), 0, SmoothGrad(Gradient(), samples=4)).heatmap
        >>> torch.allclose(smooth, model.weight)
        True
    """

    method: Method = Gradient()  # noqa: RUF009 a frozen value
    samples: int = 25
    noise: float = 0.15
    seed: int | None = 0
    first: int = field(default=0, repr=False)  # the number of the first sample of a chunk

    def __post_init__(self):
        if not isinstance(self.method, Method):
            hint = f": call it, {self.method.__name__}()" if isinstance(self.method, type) else ""
            raise TypeError(f"SmoothGrad needs a method's value such as Gradient(), got {self.method!r}{hint}")
        count("samples", self.samples)
        if not number("noise", self.noise) >= 0:
            raise ValueError(f"SmoothGrad needs noise >= 0, got {self.noise}")

    @property
    def maps_apart(self) -> bool:
        return self.method.maps_apart

    def check(self, inputs: Inputs) -> None:
        self.method.check(inputs)

    def rows(self, rows: slice, x: Form) -> Self:
        return replace(self, method=self.method.rows(rows, x), first=self.first + rows.start)

    def explanation(self, request: Request) -> Explanation:
        if not any(t.is_floating_point() for t in request.inputs.tensors):
            raise ValueError(
                "SmoothGrad adds noise to floating point inputs, and x holds whole numbers only: explain the model "
                "from its embeddings on, as x={'inputs_embeds': …} where it takes them"
            )
        output = plain_output(request)
        logits = request.score.logits(output, None if isinstance(output, Tensor) else request.score(output))
        if not self.maps_apart:  # which explain all logits together
            request = replace(request, score=request.score.fixed(output))
        noisy = (replace(request, inputs=request.inputs.replaced(t)) for t in self._noisy(request.inputs.tensors))
        return mean_explanation(self._beside(each) for each in noisy)._replace(logits=logits)

    def _beside(self, request: Request) -> Explanation:
        with undone(request.model):
            return self.method.explanation(request)

    def _noisy(self, inputs: list[Tensor]) -> Iterator[list[Tensor]]:
        """The inputs with noise, once a sample of the noise."""
        spread = [self.noise * _range(x) if x.is_floating_point() else None for x in inputs]
        generators = (
            None if self.seed is None else [_generator(self.seed, self.first + i) for i in range(len(inputs[0]))]
        )
        for _ in range(self.samples):
            yield [x if s is None else x + s * _noise(x, generators) for x, s in zip(inputs, spread)]


def _range(x: Tensor) -> Tensor:
    """The largest less the smallest value of each sample, (N, 1, ...)."""
    shape = (len(x), *[1] * (x.ndim - 1))
    if not x.numel():
        return x.new_zeros(shape)
    values = x.detach().flatten(1) if x.ndim > 1 else x.detach()[:, None]
    return (values.amax(1) - values.amin(1)).reshape(shape)


def _generator(seed: int, number: int) -> torch.Generator:
    """One for each sample, so that its noise does not depend on which samples go along."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + number) % 2**63)


def _noise(x: Tensor, generators: list | None) -> Tensor:
    if generators is None:
        return torch.randn_like(x)
    if not generators:
        return torch.zeros_like(x)
    drawn = [torch.randn(x.shape[1:], generator=g, dtype=torch.float32, device="cpu") for g in generators]
    return torch.stack(drawn).to(x)

"""Integrated gradients (Sundararajan, Taly, Yan 2017), at the input and at layers."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from attrain.engine.inputs import Form, Inputs
from attrain.engine.passes import Request, module_of, namesakes, one_pass, plain_output
from attrain.engine.state import undone
from attrain.explanation import Explanation
from attrain.methods.gradient import GradientMode, differentiable
from attrain.methods.method import Method, cut_reference, references_of
from attrain.numbers import count
from attrain.tensors import tensors


@dataclass(frozen=True, eq=False)
class IntegratedGradients(Method):
    """Gradients along the straight line from the reference to the input, averaged, times the difference.

    Points r + t · (x − r) (Sundararajan et al. 2017; DeepLIFT's experiments). At a layer the line is that from the
    layer's output on the reference to its output on x, so token ids have maps at their embeddings. Every layer has a
    line of its own, on which all that does not pass through it is as for x: layers side by side have no common total.

    Args:
        reference: as for `DeepLift`.
        steps: ≥ 1 forward and backward passes a reference, and as many for each layer.
        quadrature: "midpoint": t = (i + ½)/steps, equal weights; "gauss_legendre": exact for polynomials of degree
            2·steps − 1, so much closer on smooth networks and no better on others.
    """

    reference: float | Tensor | tuple | dict = 0.0
    steps: int = 10
    quadrature: str = "midpoint"

    def __post_init__(self):
        count("steps", self.steps)
        if self.quadrature not in ("midpoint", "gauss_legendre"):
            raise ValueError(f'quadrature must be "midpoint" or "gauss_legendre", got {self.quadrature!r}')

    def check(self, inputs: Inputs) -> None:
        references_of(self.reference, inputs)

    def rows(self, rows: slice, x: Form) -> Self:
        return replace(self, reference=cut_reference(self.reference, rows, x))

    def explanation(self, request: Request) -> Explanation:
        inputs = request.inputs
        whole = all(not t.is_floating_point() for t in inputs.tensors)
        output = plain_output(request)
        request = replace(request, score=request.score.fixed(output))
        scores, references = request.score(output), references_of(self.reference, inputs)
        maps, before = [], 0
        for reference in references:
            before = before + _scores_of_reference(request, reference, scores) / len(references)
            at_input = self._at_input(request, reference) if request.at_input and not whole else None
            maps.append([at_input, {name: self._at_layer(request, reference, name) for name in request.layers}])
        delta = (scores - before).detach()
        logits = request.score.logits(output, scores)
        return Explanation(logits, *_mean(maps, inputs, request.at_input), delta)

    def _points(self) -> list[tuple[float, float]]:
        """Places t in 0..1 and their weights, which sum to 1."""
        if self.quadrature == "gauss_legendre":
            places, weights = np.polynomial.legendre.leggauss(self.steps)
            return [(float(p + 1) / 2, float(w) / 2) for p, w in zip(places, weights)]
        return [((i + 0.5) / self.steps, 1 / self.steps) for i in range(self.steps)]

    def _at_input(self, request: Request, reference: list[Tensor]):
        """The maps at the inputs, along the line from one reference; whole numbers stay what they are."""
        request, total = replace(request, layers=()), None
        floats = [i for i, x in enumerate(request.inputs.tensors) if x.is_floating_point()]
        for place, weight in self._points():
            pairs = zip(request.inputs.tensors, reference)
            point = [r + place * (x - r) if x.is_floating_point() else x for x, r in pairs]
            with undone(request.model):
                found = one_pass(request, GradientMode, point).heatmap
            found = [found] if request.inputs.single else list(found.values() if isinstance(found, dict) else found)
            found = [weight * found[i] for i in floats]
            total = found if total is None else [a + b for a, b in zip(total, found)]
        difference = [(request.inputs.tensors[i] - reference[i]).detach() for i in floats]
        return [g * _beside(d, g) for g, d in zip(total, difference)]

    def _at_layer(self, request: Request, reference: list[Tensor], name: str) -> Tensor:
        """The map at a layer's output, along the line from what it is on one reference."""
        module, inputs = module_of(request.model, name), request.inputs
        end = _output_of(request, module, inputs.tensors, name)
        start = _output_of(request, module, [r.expand_as(x) for r, x in zip(reference, inputs.tensors)], name)
        total = 0
        for place, weight in self._points():
            point = start + place * (end - start)
            point = point if point.requires_grad else point.requires_grad_()
            with _standing_in(module, point), undone(request.model), differentiable(request.create_graph):
                scores = request.score(inputs.call(request.model, [t.clone() for t in inputs.tensors]))
            columns = scores.unbind(1) if scores.ndim == 2 else (scores,)
            found = [_gradient(c, point, request.create_graph, name) for c in columns]
            total = total + weight * (torch.stack(found, 1) if scores.ndim == 2 else found[0])
        return total * _beside(end - start, total)


def _gradient(score: Tensor, point: Tensor, create_graph: bool, name: str) -> Tensor:
    if not score.requires_grad:
        raise ValueError(f"the model's output does not depend differentiably on layer {name!r}")
    (found,) = torch.autograd.grad(score.sum(), point, create_graph=create_graph, retain_graph=True, allow_unused=True)
    return torch.zeros_like(point) if found is None else found


def _beside(difference: Tensor, gradient: Tensor) -> Tensor:
    """x − r beside gradients (N, ...) or (N, K, ...)."""
    return difference.unsqueeze(1) if gradient.ndim > difference.ndim else difference


def _output_of(request: Request, module, values: list[Tensor], name: str) -> Tensor:
    """A layer's output; with create_graph, and its graph."""
    found, thread = [], threading.get_ident()

    def keep(_, __, output):
        if threading.get_ident() == thread:
            values = tensors(output)  # as they are before the model goes on to change them in place
            found.append(values[0].clone() if values else None)

    handle = module.register_forward_hook(keep)
    try:
        grad = torch.set_grad_enabled(request.create_graph)
        with grad, undone(request.model), differentiable(request.create_graph):
            request.score.check(request.inputs.call(request.model, [t.clone() for t in values]))
    finally:
        handle.remove()
    if len(found) != 1:
        raise ValueError(
            f"layer {name!r} is called {len(found)} times in a pass: integrated gradients need it "
            f"once{'' if found else namesakes(request, name)}"
        )
    if found[0] is None or not found[0].is_floating_point():
        raise TypeError(f"layer {name!r} does not return a tensor of numbers: it has no map")
    return found[0]


@contextmanager
def _standing_in(module, point: Tensor):
    """A point of the path in place of a layer's output, in this thread."""
    thread = threading.get_ident()

    def replace_output(_, __, output):
        return _replaced(output, point.clone()) if threading.get_ident() == thread else None

    handle = module.register_forward_hook(replace_output)
    try:
        yield
    finally:
        handle.remove()


def _replaced(output, point: Tensor):
    """A layer's output with its first tensor replaced."""
    if isinstance(output, Tensor):
        return point
    if type(output) is tuple and isinstance(output[0], Tensor):
        return (point, *output[1:])
    raise TypeError(f"a layer that returns {type(output).__name__} cannot be replaced along a path")


def _scores_of_reference(request: Request, reference: list[Tensor], like: Tensor) -> Tensor:
    """The explained numbers on a reference; where all samples share it, of one run for all of them if that will do."""
    inputs, model = request.inputs, request.model
    alone = inputs.single and not getattr(model, "training", True) and not inputs.args and not inputs.kwargs
    if alone and len(reference[0]) == 1:
        try:
            output = request.output(reference)
        except (ValueError, RuntimeError, IndexError):  # a score, or a constant of the model's, that needs all samples
            output = None
        if isinstance(output, Tensor) and len(output) == 1:
            return request.score(output.expand(len(inputs), *output.shape[1:]))
    return request.score(request.output([r.expand_as(x) for r, x in zip(reference, inputs.tensors)]))


def _mean(maps: list, inputs: Inputs, at_input: bool):
    """The mean over references, in the form of the inputs, and of the layers."""
    heatmaps, layers = zip(*maps)
    if heatmaps[0] is not None:
        each = iter([sum(h) / len(maps) for h in zip(*heatmaps)])
        heatmap = inputs.formed([next(each) if x.is_floating_point() else None for x in inputs.tensors])
    else:
        heatmap = inputs.without_maps(at_input)
    return heatmap, {name: sum(found[name] for found in layers) / len(maps) for name in layers[0]}

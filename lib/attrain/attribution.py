"""One forward pass, one backward pass under modified local rules, one contraction.

`explain` knows nothing about any method: a method (see `attrain.methods`) hands it a set of rules
(`attrain.engine.rules`) that is active while the model runs, says where the gradient is read, and
contracts that gradient to a map. Operations are intercepted as they are called, so a module,
its functional form, an in-place call and a module used twice are the same thing, and nothing is left in
the model.
"""

import difflib
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from attrain.chunks import in_chunks
from attrain.engine.operations import finite
from attrain.engine.unseen import uncompiled
from attrain.methods.gradient import LRP
from attrain.targets import Target


class Explanation(NamedTuple):
    """What `explain` returns.

    Attributes:
        logits: the model's output (N, C), from the same forward pass as the map.
        heatmap: shape of x for one map a sample; (N, K, ...) where the target asks for K maps.
        layers: name of a layer -> map at its output, (N, ...) or (N, K, ...).
        delta: what each map sums to, (N,) or (N, K), where the method has that property; else None.
    """

    logits: Tensor
    heatmap: Tensor
    layers: dict[str, Tensor]
    delta: Tensor | None


def explain(
    model: nn.Module, x: Tensor, target: Target = None, method=LRP(), *, layers=(), create_graph: bool = False,
    at_input: bool = True, chunk_size: int | None = None, out: Tensor | None = None,
) -> Explanation:  # fmt: skip
    """Attribute a model's output to its input.

    Args:
        model: maps (N, ...) to logits (N, C). It comes back as it went in: mode, hooks, parameters,
            `.grad` and, unless `create_graph`, buffers.
        x: input (N, ...), floating point, finite. Never modified.
        target: what is explained. `None`: the predicted class; an int: that class; LongTensor (N,):
            a class a sample; LongTensor (N, K): K maps a sample; `"all"`: one map a class; or a
            callable from logits (N, C) to one number a sample (N,), as `selective_target()`.
            The explained numbers are summed over the batch, so every sample has its own map.
        method: a value of `attrain.methods`, for instance `LRP(epsilon=1e-2)`.
        layers: names of modules (as in `model.named_modules()`) whose output also gets a map, where the
            output is a tensor, or the first tensor of a tuple; of a module called twice, the last call's.
        create_graph: make the map (and the logits) differentiable with respect to the parameters, so
            that both can be trained on. This is then the forward pass of a training step: batch norm
            in training mode updates its running statistics, as it would without `explain`.
        at_input: without, only the maps at the layers are made, by a backward pass no longer than they need, and
            `heatmap` is an empty (N, 0).
        chunk_size: explain at most so many samples at once, so that memory does not grow with N; for maps that
            are only looked at, not with `create_graph`. x, and what belongs to its samples (classes, references),
            may lie elsewhere than the model, on the CPU or in a memory-mapped file: chunks are brought to the
            device of the model's parameters, maps back to that of x. A callable target sees a chunk's logits.
        out: with `chunk_size`, a tensor that the maps are written to as they are made, such as a memory-mapped file.

    Raises:
        TypeError, ValueError: input that is not finite floating point, a target out of range, a model
            that does not return (N, C), a reference or the name of a layer that does not fit.
        attrain.UnsupportedOperation: the model calls an operation that the method has no rule for.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> result = explain(model, torch.ones(3, 2), target=0, layers=["1"])
        >>> result.logits.shape, result.heatmap.shape, result.layers["1"].shape
        (torch.Size([3, 1]), torch.Size([3, 2]), torch.Size([3, 2]))
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}")
    if chunk_size is not None:
        if create_graph:
            raise ValueError("chunk_size is for maps that are not trained on, got create_graph=True")
        return in_chunks(partial(explain, layers=layers, at_input=at_input), model, x, target, method, chunk_size, out)
    if out is not None:
        raise ValueError("out is written to chunk by chunk: give a chunk_size too")
    if not finite(x):
        raise ValueError("x holds NaN or infinite values; a map of it would be meaningless")
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    if not (at_input or layers):
        raise ValueError("without at_input there must be layers to make maps at, got none")
    with torch.enable_grad(), uncompiled(), _buffers_kept(model, keep=not create_graph):
        result = method.run(_Pass(model, create_graph, at_input), x, target, layers, create_graph)
    if create_graph:
        return result
    logits, heatmap, at_layers, delta = result
    return Explanation(logits.detach(), heatmap.detach(), {k: v.detach() for k, v in at_layers.items()}, delta)


@dataclass
class _Pass:
    """One forward and one backward pass through a model, as a method asks for them."""

    model: nn.Module
    create_graph: bool
    at_input: bool = True
    explanation = Explanation

    def __call__(self, x: Tensor, target: Target, make_rules, layers: tuple) -> Explanation:
        leaf = x.detach().requires_grad_()
        entry = leaf.clone()  # an operation of the model in place on its input changes this copy
        rules = make_rules(leaf, entry)
        rules.create_graph = self.create_graph
        with rules.around(self.model), _outputs(self.model, layers, self.create_graph) as outputs:
            logits = rules.forward(self.model, entry)
            _check_logits(logits, len(x))
            scores, delta = rules.scores(logits, target)  # (N,) or (N, K)
            outputs = _complete(outputs, layers)
            several = scores.ndim == 2
            maps = [
                self.backward(rules, logits, column, outputs, last=k + 1 == len(columns))
                for columns in [scores.unbind(1) if several else (scores,)]
                for k, column in enumerate(columns)
            ]
        heatmap, *rest = (torch.stack(m, 1) if several else m[0] for m in zip(*maps))
        return Explanation(logits, heatmap, dict(zip(layers, rest)), delta)

    def backward(self, rules, logits, score, outputs, last: bool) -> list[Tensor]:
        """The map at the input and those at the layers, averaged over the references."""
        total = None
        for number in range(rules.references):
            retain = self.create_graph or not last or number + 1 < rules.references
            with rules.explaining(number, last=not retain):
                start, weight = rules.start(logits, score)
                root, *gradients = torch.autograd.grad(
                    start,
                    [rules.root if self.at_input else start, *(edge for edge, _, _ in outputs)],
                    weight,
                    create_graph=self.create_graph,
                    retain_graph=retain,
                    allow_unused=True,
                )
                if root is None:
                    raise ValueError("the model's output does not depend differentiably on x; is it detached inside?")
                empty = rules.x.detach().new_empty(len(rules.x), 0)
                maps = [rules.contract(root, self.create_graph) if self.at_input else empty]
                for g, (_, value, reference) in zip(gradients, outputs):
                    maps.append(rules.contract_at(torch.zeros_like(value) if g is None else g, value, reference))
            total = maps if total is None else [a + b for a, b in zip(total, maps)]
        return [m / rules.references for m in total] if rules.references > 1 else total

    def logits(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self.model(x.clone())
            _check_logits(logits, len(x))
        return logits

    def mean(self, found: list[Explanation]) -> Explanation:
        """The mean of explanations of one input."""
        average = lambda values: sum(values) / len(found)  # noqa: E731
        at_layers = {name: average([f.layers[name] for f in found]) for name in found[0].layers}
        return Explanation(
            found[0].logits, average([f.heatmap for f in found]), at_layers, average([f.delta for f in found])
        )


def _check_logits(logits, n: int) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model must return logits of shape ({n}, C), got {got}")
    if torch.is_grad_enabled() and not logits.requires_grad:
        raise ValueError("the model's output does not depend differentiably on x; is it detached inside?")


@contextmanager
def _outputs(model: nn.Module, names: tuple, create_graph: bool):
    """Collect, by layer, where its output stands in the graph, its value and its reference; this thread's only."""
    found, modules, thread = {}, dict(model.named_modules()), threading.get_ident()

    def keep(name, module, args, output):
        if threading.get_ident() != thread:
            return
        value = output[0] if isinstance(output, tuple) else output
        if not isinstance(value, Tensor):
            raise TypeError(f"layer {name!r} returns {type(value).__name__}, not a tensor: it has no map")
        if value.requires_grad:
            with torch._C.DisableTorchFunction():
                own = getattr(value, "_attrain_pair", None)
                reference = None if own is None else own.reference.clone()
                found[name] = (
                    get_gradient_edge(value),
                    value.clone() if create_graph else value.detach().clone(),
                    reference,
                )

    with ExitStack() as hooks:
        for name in names:
            if name not in modules:
                near = difflib.get_close_matches(name, modules, 3, 0.4)
                raise ValueError(f"the model has no layer {name!r}; near names: {', '.join(near) or 'none'}")
            handle = modules[name].register_forward_hook(lambda *a, name=name: keep(name, *a))
            hooks.callback(handle.remove)
        yield found


def _complete(found: dict, names: tuple) -> list:
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"layer {missing[0]!r} has no output in the model's forward pass that depends on x")
    return [found[name] for name in names]


@contextmanager
def _buffers_kept(model: nn.Module, keep: bool):
    """Undo what a forward pass in training mode does to buffers (batch-norm statistics)."""
    if not (keep and any(module.training for module in model.modules())):
        yield
        return
    saved = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)

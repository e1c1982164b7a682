"""One forward pass, one backward pass under modified local rules, one contraction.

`explain` knows nothing about any method: a method (see `attrain.methods`) hands it a set of rules
(`attrain.rules`) that is active while the model runs, says where the gradient is read, and contracts
that gradient to a map. Operations are intercepted as they are called, so a module, its functional
form, an in-place call and a module used twice are the same thing, and nothing is left in the model.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attrain.methods import LRP
from attrain.targets import Target, target_scores


class Explanation(NamedTuple):
    """What `explain` returns.

    Attributes:
        logits: the model's output (N, C), from the same forward pass as the map.
        heatmap: shape of x for one map a sample; (N, K, ...) where the target asks for K maps.
    """

    logits: Tensor
    heatmap: Tensor


def explain(
    model: nn.Module, x: Tensor, target: Target = None, method=LRP(), *, create_graph: bool = False
) -> Explanation:
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
        create_graph: make the map (and the logits) differentiable with respect to the parameters, so
            that both can be trained on. This is then the forward pass of a training step: batch norm
            in training mode updates its running statistics, as it would without `explain`.

    Raises:
        TypeError, ValueError: input that is not finite floating point, a target out of range, a model
            that does not return (N, C).
        attrain.rules.UnsupportedOperation: the model calls an operation that the method has no rule for.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> logits, heatmap = explain(model, torch.ones(3, 2), target=0)
        >>> logits.shape, heatmap.shape
        (torch.Size([3, 1]), torch.Size([3, 2]))
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values; a map of it would be meaningless")
    leaf = x.detach().requires_grad_()
    with torch.enable_grad(), _buffers_kept(model, keep=not create_graph):
        entry = leaf.clone()  # an operation of the model in place on its input changes this copy
        rules = method.rules(leaf, entry)
        with rules:
            logits = model(entry)
        _check_logits(logits, len(x))
        scores = target_scores(logits, target)  # (N,) or (N, K)
        columns = scores.unbind(1) if scores.ndim == 2 else (scores,)
        maps = []
        for k, column in enumerate(columns):
            with rules.explaining():
                (gradient,) = torch.autograd.grad(
                    column.sum(),
                    rules.root,
                    create_graph=create_graph,
                    retain_graph=create_graph or k + 1 < len(columns),
                )
            maps.append(rules.contract(gradient, create_graph))
    heatmap = torch.stack(maps, dim=1) if scores.ndim == 2 else maps[0]
    return Explanation(logits, heatmap) if create_graph else Explanation(logits.detach(), heatmap.detach())


def _check_logits(logits, n: int) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model must return logits of shape ({n}, C), got {got}")
    if not logits.requires_grad:
        raise ValueError("the model's output does not depend differentiably on x; is it detached inside?")


@contextmanager
def _buffers_kept(model: nn.Module, keep: bool):
    """Undo what a forward pass in training mode does to buffers (batch-norm statistics)."""
    if not (keep and model.training):
        yield
        return
    saved = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)

"""LRP-z⁺, and Dual ISNet's pair of maps (LRP-z⁺ and LRP-ε) from one forward pass.

LRP-z⁺ (Montavon et al. 2017, α = 1, β = 0) sends relevance back along positive contributions only. With
a the input of a layer, W its weight and o its output,

    z_k = Σ_j (a_j w_jk)⁺ + b_k⁺,        R_j = Σ_k (a_j w_jk)⁺ · R_k / (z_k + ε)

Here as in `attrain.engine.rules` the backward pass carries G = R/a, so R_k = G_k · max(o_k, 0), and operations
without a weight (ReLU, pooling, concatenation) keep their ordinary derivative.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import resolve_name

from attrain.engine.fast.batchnorm import affine
from attrain.engine.fast.convolution import convolution
from attrain.engine.operations import (
    CONVOLUTIONS,
    LINEAR,
    PRODUCTS,
    QUOTIENTS,
    UnsupportedOperation,
    along,
    canonical,
    write,
)
from attrain.methods.gradient import ZB, Method
from attrain.methods.lrp import LRPRules

LAYERS = frozenset("conv1d conv2d conv3d linear".split())


@dataclass(frozen=True)
class ZPlus(Method):
    """LRP-z⁺ throughout a ReLU network, differentiable, so that it can be trained on.

    Args:
        epsilon: > 0, added to every denominator (the authors' code: 1e-2).
        first_layer: `ZB(low, high)` for the z^B rule at the input, or None for z⁺ there too.

    Where the logits come from a linear layer, the relevance that starts at logit k is its positive part
    with positive weights and biases only, z_k; otherwise it is the logit.

    Example:
        >>> from attrain import explain
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> model.weight.data = torch.tensor([[2.0, -1.0]])
        >>> explain(model, torch.tensor([[3.0, 4.0]]), 0, ZPlus(epsilon=1e-9)).heatmap
        tensor([[6., 0.]])
    """

    epsilon: float = 1e-2
    first_layer: ZB | None = None

    def __post_init__(self):
        if not self.epsilon > 0:
            raise ValueError(f"{type(self).__name__} needs epsilon > 0, got {self.epsilon}")

    def rules(self, x: Tensor, entry: Tensor) -> "ZPlusRules":
        return ZPlusRules(x, entry, self.epsilon, self.first_layer)


@dataclass(frozen=True)
class Dual(ZPlus):
    """Dual ISNet's two maps a sample, (N, 2, ...): LRP-z⁺ throughout and LRP-ε throughout, in this order.

    Both start from all logits together, whatever `target` is, which must be None or `"all"`, and come from
    the same forward pass. Each has a natural range of its own, see `estimate_foreground_range`.

    The authors' LRP Block adds ε at max pools and at the output layer too. Its maps are these as ε → 0 (z⁺ to
    5e-6 on a small network); at ε = 1e-2 they differ, z⁺ by 1 to 6 % and ε by 18 to 34 % of the largest value.

    Args:
        epsilon: > 0, that of both rules.
        first_layer: `ZB(low, high)` for the z^B rule at the input of both, or None.
    """

    maps_apart = True  # the maps of a sample differ in size: `estimate_foreground_range` finds a range for each

    def rules(self, x: Tensor, entry: Tensor) -> "DualRules":
        return DualRules(x, entry, self.epsilon, self.first_layer)


class ZPlusRules(LRPRules):
    """The z⁺ rule at layers with a weight, at batch norms and at sums of activations.

    A batch norm on the output of a layer is folded into it, as in z^B; any other is a layer of its own with
    one weight a channel. Biases and batch statistics are constants for the map's derivative. A sum x + y is
    shared by x⁺ / (x⁺ + y⁺ + ε). Negative inputs of a layer (a signed image, say) contribute through
    negative weights.
    """

    def __init__(self, x, entry, epsilon: float, first_layer=None):
        super().__init__(x, entry, epsilon, first_layer)
        self.positive = {"explaining": False}  # the switch of these rules; `switch` is LRP-ε's
        self.output = self.input = self.layer = self.version = None  # of the last layer

    @contextmanager
    def explaining(self, reference: int = 0, last: bool = False):
        self.positive["explaining"] = True
        try:
            yield
        finally:
            self.positive["explaining"] = self.switch["explaining"] = False

    def forward(self, model, x):
        logits = super().forward(model, x)
        if self._is_output(logits):
            self.layer.last = True
        return logits

    def _is_output(self, x) -> bool:
        """Is this the last layer's output, not since changed in place?"""
        return x is self.output and x._version == self.version

    def call(self, func, name, args, kwargs):
        core, inplace = canonical(func)
        if core == "add" and sum(isinstance(a, Tensor) for a in args) == 2 and any(a.requires_grad for a in args[:2]):
            return self._sum(func, inplace, *args, **kwargs)
        out = super().call(func, name, args, kwargs)
        if not (isinstance(out, Tensor) and out.requires_grad):
            return out
        several = any(isinstance(a, Tensor) and a.ndim for a in args[1:])
        if core in LINEAR - LAYERS or (core in PRODUCTS | QUOTIENTS | {"sub", "rsub", "subtract"} and several):
            raise UnsupportedOperation(f"LRP-z⁺ has no rule for {resolve_name(func) or name} of these arguments")
        if core in LAYERS:
            return self._weigh(out, *_layer(func, self.epsilon, *args, **kwargs))
        if core == "batch_norm" and func is F.batch_norm:
            return self._normalise(out, *args, **kwargs)
        return out

    def _weigh(self, out, x, layer):
        self.input, self.layer = x, layer
        self.output = _ZPlus.apply(x, layer.weight, out.relu(), out, (out.detach(),), layer, self.positive)
        self.version = self.output._version
        if self.first is not None and self.first.output is out:
            self.first.output = self.root = self.output
        return self.output

    def _normalise(self, out, x, *rest, **options):
        scale, mean, shift = affine(out, x, *rest, **options)
        if self._is_output(x) and self.layer.weight.ndim == x.ndim:
            folded = (self.layer.weight * scale.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)
            constant = shift + scale.detach() * (self.layer.bias - mean)
            return self._weigh(out, self.input, replace(self.layer, weight=folded, bias=constant))
        alone = along(scale, 1, x.ndim)
        return self._weigh(out, x, _Layer(torch.mul, alone, shift - scale.detach() * mean, 1, self.epsilon))

    def _sum(self, func, inplace, x, y, alpha=1):
        if alpha != 1:
            raise UnsupportedOperation("LRP-z⁺ has no rule for a sum with alpha")
        parts = x.relu() + y.relu() + self.epsilon
        out = func(x.clone() if inplace else x, y)
        shared = _Share.apply(out, out.relu() / parts, (out.detach(),), self.positive)
        return write(x, shared) if inplace else shared


class DualRules(ZPlusRules):
    """Two backward passes through one forward pass: first by z⁺, then by ε."""

    def __init__(self, x, entry, epsilon: float, first_layer=None):
        super().__init__(x, entry, epsilon, first_layer)
        self.turn = 0

    def scores(self, logits, target):
        if not (target is None or (isinstance(target, str) and target == "all")):
            raise ValueError(f'Dual explains all logits together: target must be None or "all", got {target!r}')
        return logits.sum(1, keepdim=True).expand(-1, 2), None

    def start(self, logits, score):
        self.positive["explaining"], self.switch["explaining"] = self.turn == 0, self.turn == 1
        self.turn += 1
        return super().start(logits, score)


@dataclass
class _Layer:
    """A layer apply(input, weight) + bias."""

    apply: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor | float
    channel_dim: int
    epsilon: float
    switch: dict = field(default_factory=dict)  # of a convolution that is cheap to differentiate twice
    last: bool = False  # its output is the logits


def _layer(func, epsilon, input, weight, bias=None, *rest, **options) -> tuple[Tensor, _Layer]:
    """The input of a call of a function in LAYERS, and the layer."""
    bias = 0.0 if bias is None else bias.detach()
    channel_dim, switch = -1 if func.__name__ == "linear" else 1, {"explaining": False}
    if func.__name__ in CONVOLUTIONS:
        func = partial(convolution, func, func.__name__, switch, False)
    return input, _Layer(lambda v, w: func(v, w, None, *rest, **options), weight, bias, channel_dim, epsilon, switch)


class _ZPlus(Function):
    """The identity on a layer's output; while explaining, its gradient goes to the layer's input by the rule."""

    @staticmethod
    def forward(ctx, x, weight, active, out, result, layer, switch):
        ctx.save_for_backward(x, weight, active)
        ctx.set_materialize_grads(False)  # no gradient comes to a layer by its batch norm, which goes to its input
        ctx.layer, ctx.switch = layer, switch
        return result[0]

    @staticmethod
    def backward(ctx, g):
        if g is None or not ctx.switch["explaining"]:
            return None, None, None, g, None, None, None
        x, weight, active = ctx.saved_tensors
        layer, create_graph = ctx.layer, torch.is_grad_enabled()
        with torch.enable_grad():
            parts, weights = [x.relu()], [weight.relu()]
            if (x < 0).any():
                parts, weights = [parts[0], -(-x).relu()], [weights[0], -(-weight).relu()]
            parts = [p if p.requires_grad else p.requires_grad_() for p in parts]
            positive = [layer.apply(p, w) for p, w in zip(parts, weights)]
            z = sum(positive)
            if isinstance(layer.bias, Tensor):
                z = z + along(layer.bias.clamp(min=0), layer.channel_dim, z.ndim)
            share = g * (z if layer.last else active) / (z + layer.epsilon)
            layer.switch["explaining"] = True
            gradients = torch.autograd.grad(positive, parts, [share] * len(parts), create_graph=create_graph)
            layer.switch["explaining"] = False
        total = gradients[0] if len(parts) == 1 else torch.where(x < 0, gradients[1], gradients[0])
        return total, None, None, None, None, None, None


class _Share(Function):
    """The identity on a sum; while explaining, the gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx, out, factor, result, switch):
        ctx.save_for_backward(factor)
        ctx.set_materialize_grads(False)
        ctx.switch = switch
        return result[0]

    @staticmethod
    def backward(ctx, g):
        explained = g is not None and ctx.switch["explaining"]
        return g * ctx.saved_tensors[0] if explained else g, None, None, None

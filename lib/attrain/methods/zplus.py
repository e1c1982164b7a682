"""LRP-z⁺, and Dual ISNet's pair of maps (LRP-z⁺ and LRP-ε) from one forward pass.

LRP-z⁺ (Montavon et al. 2017, α = 1, β = 0) sends relevance back along positive contributions only. With
a the input of a layer, W its weight and o its output,

    z_k = Σ_j (a_j w_jk)⁺ + b_k⁺,        R_j = Σ_k (a_j w_jk)⁺ · R_k / (z_k + ε)

Here as everywhere the backward pass carries G = R/a, so R_k = G_k · max(o_k, 0), and operations
without a weight (ReLU, pooling, concatenation) keep their ordinary derivative.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import GradientEdge

from attrain.engine.call import Call, UnsupportedOperation, is_bicubic, write
from attrain.engine.fast.batchnorm import affine
from attrain.engine.fast.convolution import convolution
from attrain.engine.mode import Backward, Mode, Tensors
from attrain.methods import lrp
from attrain.methods.lrp import LRPMode
from attrain.methods.method import Method
from attrain.methods.zb import ZB, check_first_layer
from attrain.numbers import number
from attrain.tensors import along


@dataclass(frozen=True)
class ZPlus(Method):
    """LRP-z⁺ throughout a ReLU network, differentiable, so that it can be trained on.

    Args:
        epsilon: > 0, added to every denominator (the authors' code: 1e-2).
        first_layer: `ZB(low, high)` for the z^B rule at the input, or None for z⁺ there too.

    Where the logits come from a layer with a weight, the relevance that starts at logit k is its positive part with
    positive weights and biases only, z_k: also where they are handed on by what keeps its derivative (a copy, a shape,
    a selection, a mean, a factor), to whatever the model returns and the target takes. Where they come from a ReLU or
    a sum, it is the logit.

    A layer with a weight and the batch norm behind it are one layer; there is a map behind both, not between them.

    Raises:
        ValueError: ε that is no number above 0; in `explain`, a layer whose batch norm is one with it.

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
        check_first_layer(self.first_layer)
        if not number("epsilon", self.epsilon) > 0:
            raise ValueError(f"{type(self).__name__} needs epsilon > 0, got {self.epsilon}")

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return ZPlusMode(leaves, entries, create_graph, model, epsilon=self.epsilon, first_layer=self.first_layer)


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

    maps_apart: ClassVar[bool] = True

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return DualMode(leaves, entries, create_graph, model, epsilon=self.epsilon, first_layer=self.first_layer)


# ---------------------------------------------------------------- rules


def layer(mode: "ZPlusMode", call: Call):
    """The z⁺ rule of a layer with a weight."""
    return mode.weigh(lrp.weighted(mode, call), call.given["input"], _layer(mode, call))


def batch_norm(mode: "ZPlusMode", call: Call):
    """Folded into the layer whose output it takes, as in z^B; any other is a layer with one weight a channel."""
    out, x = lrp.normalisation(mode, call), call.given["input"]
    scale, mean, shift = affine(out, **call.given)
    copied = mode.original(x)
    before = mode.weighed(copied)
    at_end = mode.first is not None and mode.first.stage == "batch_norm" and copied is mode.first.output
    if before is not None and not at_end and before[1].weight.ndim == x.ndim:
        entered, layer = before
        folded = (layer.weight * scale.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)
        constant = shift + scale.detach() * (layer.bias - mean)
        if torch.is_grad_enabled() and x.grad_fn is not None:
            mode.folded += _copies(x.grad_fn)
        return mode.weigh(out, entered, replace(layer, weight=folded, bias=constant))
    alone = along(scale, 1, x.ndim)
    return mode.weigh(out, x, _Layer(torch.mul, alone, shift - scale.detach() * mean, 1, mode.epsilon))


def addition(mode: "ZPlusMode", call: Call):
    """x + y is shared by x⁺ / (x⁺ + y⁺ + ε); a constant takes its share too."""
    x, y = call.given["input"], call.given.get("other")
    if not isinstance(y, Tensor) or not isinstance(x, Tensor):
        return call.run()
    if call.given.get("alpha", 1) != 1:
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} with alpha")
    if any(not mode.is_active(t) and not t.any() for t in (x, y)):
        return call.run()  # nothing is added
    parts = x.relu() + y.relu() + mode.epsilon
    out = call.run(lambda t: t)
    shared = _Share.apply(out, out.relu() / parts, (out.detach(),), mode.positive)
    return write(call.tensors[0], shared) if call.inplace else shared


def of_one(mode: "ZPlusMode", call: Call):
    """A difference, product or quotient with a number, or before a first layer by z^B with any: the derivative."""
    prepares = mode.first is not None and not mode.first.begun
    if any(t.ndim for t in call.tensors[1:]) and not prepares:
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} of these arguments")
    return lrp.TABLE[call.kind](mode, call)


def capped_relu(mode: "ZPlusMode", call: Call):
    """A ReLU that ends at a number hands its relevance on."""
    return lrp.capped_relu(mode, call, mode.positive)


def no_sum(mode: "ZPlusMode", call: Call):
    """A sum along a dimension is one of activations, which a + b shares by their positive parts."""
    raise UnsupportedOperation(
        f"{mode.title} has no rule for {call} along a dimension; write a + b, or take the mean where it is a pooling"
    )


def reduced(mode: "ZPlusMode", call: Call):
    """A mean or maximum of what goes to one place; a sum is one of activations."""
    return no_sum(mode, call) if call.given.get("reduce") == "sum" else lrp.reduced(mode, call)


def resized(mode: "ZPlusMode", call: Call):
    """Bicubic interpolation has weights of both signs, and is no layer that the z⁺ rule knows."""
    if is_bicubic(call):
        raise UnsupportedOperation(
            f"{mode.title} has no rule for {call} with bicubic weights, of which some are negative; interpolate "
            'by "bilinear"'
        )
    return call.run()


def transposed(mode: "ZPlusMode", call: Call):
    """Transposed convolutions have no z⁺ rule."""
    raise UnsupportedOperation(f"{mode.title} has no rule for {call} of these arguments")


TABLE = lrp.TABLE | {
    "convolutions": transposed,
    **dict.fromkeys("conv1d conv2d conv3d linear".split(), layer),
    "normalisations": batch_norm,
    **dict.fromkeys(lrp.CAPPED_RELUS, capped_relu),
    "add": addition,
    **dict.fromkeys("sum cumsum trace index_add scatter_add".split(), no_sum),
    **dict.fromkeys(("scatter_reduce", "index_reduce"), reduced),
    **dict.fromkeys("interpolate upsample upsample_bicubic2d _upsample_bicubic2d_aa".split(), resized),
    **dict.fromkeys("sub rsub products quotients".split(), of_one),
}


class ZPlusMode(LRPMode):
    """The z⁺ rule at layers with a weight, at batch norms and at sums of activations.

    Biases and batch statistics are constants for the map's derivative. Negative inputs of a layer (a signed image, say)
    contribute through negative weights.
    """

    table, keeps, title = TABLE, True, "LRP-z⁺"

    def __init__(self, *args, epsilon: float, first_layer: ZB | None = None):
        super().__init__(*args, epsilon=epsilon, first_layer=first_layer)
        self.positive = Backward()  # that of these rules; `backward` is LRP-ε's
        self.started: list[_Layer] = []  # where the explained number comes from
        self.folded = []  # nodes whose output a batch norm took, as one layer with it

    @contextmanager
    def explaining(self, reference: int = 0, last: bool = False):
        self.positive.explaining = True
        try:
            yield
        finally:
            self.positive.explaining = self.backward.explaining = False

    def start(self, output, score):
        start, weight = super().start(output, score)
        if self.positive.explaining:
            self._start_layers(start)
        return start, weight

    def _start_layers(self, start: Tensor) -> None:
        """Give the layers from which the explained number comes, without a ReLU or a sum between, their part of it."""
        for layer in self.started:
            layer.start = None
        nodes = _last(start.grad_fn)
        self.started = [node.layer for node in nodes]
        if not nodes:
            return
        edges = [GradientEdge(node, 0) for node in nodes]
        self.positive.ends = self.backward.ends = True
        try:
            found = torch.autograd.grad(
                start, edges, create_graph=self.create_graph, retain_graph=True, allow_unused=True
            )
        finally:
            self.positive.ends = self.backward.ends = False
        for layer, gradient in zip(self.started, found):
            layer.start = gradient

    def check_layer(self, name, node):
        if node in self.folded:
            raise ValueError(
                f"{self.title} takes layer {name!r} and the batch norm behind it as one: ask for the batch norm's map"
            )

    def weighed(self, y: Tensor) -> tuple[Tensor, "_Layer"] | None:
        """What went into the layer of which this is the output, not since changed in place, and the layer."""
        token, version, *before = getattr(y, "_attrain_weighed", (None, None))
        return tuple(before) if token is self.token and y._version == version else None

    def weigh(self, out: Tensor, x: Tensor, layer: "_Layer") -> Tensor:
        """A layer's output, whose backward pass follows the rule."""
        y = _ZPlus.apply(x, layer.weight, out.relu(), out, (out.detach(),), layer, self.positive)
        y._attrain_weighed = self.token, y._version, x, layer
        if hasattr(out, "_attrain_statistics"):
            y._attrain_statistics = out._attrain_statistics
        return y


class DualMode(ZPlusMode):
    """Two backward passes through one forward pass: first by z⁺, then by ε."""

    title = "Dual"

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.turn = 0

    def scores(self, output, score):
        logits = score.logits(output)
        if not score.is_default:
            given = "a callable" if score.callable else repr(score.target)
            raise ValueError(f'Dual explains all logits together: target must be None or "all", got {given}')
        return logits.reshape(len(logits), -1).sum(1, keepdim=True).expand(-1, 2), None

    def start(self, output, score):
        self.positive.explaining, self.backward.explaining = self.turn == 0, self.turn == 1
        self.turn += 1
        return super().start(output, score)


def _copies(node) -> list:
    """A node of unchanged copies, and those before it, to the layer's whose output they copy."""
    nodes = []
    while node is not None:
        nodes.append(node)
        last = getattr(type(node), "_forward_cls", None) is _ZPlus or not node.next_functions
        node = None if last else node.next_functions[0][0]
    return nodes


def _last(node) -> list:
    """The layers' nodes at which a graph arrives before it comes to a rule."""
    seen, queue, found = {None}, [node], []
    while queue:
        node = queue.pop()
        if node in seen:
            continue
        seen.add(node)
        kind = getattr(type(node), "_forward_cls", None)
        if kind is _ZPlus:
            found.append(node)
        elif kind not in (_Share, lrp.EpsilonReLU):
            queue.extend(following for following, _ in node.next_functions)
    return found


@dataclass
class _Layer:
    """A layer apply(input, weight) + bias."""

    apply: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor | float
    channel_dim: int
    epsilon: float
    backward: Backward = field(default_factory=Backward)  # of a convolution that is cheap to differentiate twice
    start: Tensor | None = None  # the explained number's gradient at its output, not by way of other rules


def _layer(mode: Mode, call: Call) -> "_Layer":
    """The layer that a call of a convolution or of `linear` is, in the precision of that call."""
    given = {k: v for k, v in call.given.items() if k not in ("input", "bias")}
    bias, backward = call.given.get("bias"), Backward()
    bias = 0.0 if bias is None else bias.detach()
    device = call.given["weight"].device.type
    cast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def apply(x: Tensor, weight: Tensor) -> Tensor:
        y = None
        with torch.autocast(device, enabled=cast[0], dtype=cast[1]):
            if call.kind == "convolutions":
                y, _ = convolution(call.name, given | {"input": x, "weight": weight}, backward, at_entry=False)
            return call.func(x, **given | {"weight": weight}) if y is None else y

    return _Layer(apply, call.given["weight"], bias, -1 if call.name == "linear" else 1, mode.epsilon, backward)


class _ZPlus(Function):
    """The identity on a layer's output; while explaining, its gradient goes to the layer's input by the rule."""

    @staticmethod
    def forward(ctx, x, weight, active, out, result, layer, positive):
        ctx.save_for_backward(x, weight, active)
        ctx.set_materialize_grads(False)  # no gradient comes to a layer by its batch norm, which goes to its input
        ctx.layer, ctx.rules = layer, positive
        return result[0]

    @staticmethod
    def backward(ctx, g):
        if g is None or ctx.rules.ends:
            return None, None, None, None, None, None, None
        if not ctx.rules.explaining:
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
            relevance = g * active if layer.start is None else layer.start * z + (g - layer.start) * active
            share = relevance / (z + layer.epsilon)
            layer.backward.explaining = True
            gradients = torch.autograd.grad(positive, parts, [share] * len(parts), create_graph=create_graph)
            layer.backward.explaining = False
        total = gradients[0] if len(parts) == 1 else torch.where(x < 0, gradients[1], gradients[0])
        return total, None, None, None, None, None, None


class _Share(Function):
    """The identity on a sum; while explaining, the gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx, out, factor, result, positive):
        ctx.save_for_backward(factor)
        ctx.set_materialize_grads(False)
        ctx.rules = positive
        return result[0]

    @staticmethod
    def backward(ctx, g):
        if ctx.rules.ends:
            return None, None, None, None
        explained = g is not None and ctx.rules.explaining
        return g * ctx.saved_tensors[0] if explained else g, None, None, None

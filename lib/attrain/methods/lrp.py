"""LRP-ε of ReLU networks, differentiable: the method and its rules; that of the first layer is in `zb`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import Function

from attrain.engine.call import ADVICE, Call, UnsupportedOperation, is_copy, write
from attrain.engine.mode import Backward, Mode, Tensors, derivative
from attrain.methods.gradient import InputXGradientMode, batch_norm, convolution
from attrain.methods.method import Method
from attrain.methods.zb import CAPPED_RELUS, ZB, FirstLayer, check_first_layer
from attrain.numbers import number
from attrain.tensors import tensors


@dataclass(frozen=True)
class LRP(Method):
    """LRP-ε of a ReLU network in one backward pass (LRP-Flex; Bassi, Decherchi, Cavalli 2024).

    Args:
        epsilon: ≥ 0; the ReLU's multiplier is y/(y+ε). 0 is gradient × input where every ReLU is without an upper end.
        first_layer: `ZB(low, high)` for the z^B rule at the input, or None.

    Example:
        >>> from attrain import explain
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> explain(net, torch.rand(2, 1, 8, 8), target="all", method=LRP(1e-2, ZB(0, 1))).heatmap.shape
        torch.Size([2, 3, 1, 8, 8])
    """

    epsilon: float = 1e-2
    first_layer: ZB | None = None

    def __post_init__(self):
        check_first_layer(self.first_layer)
        if not number("epsilon", self.epsilon) >= 0:
            raise ValueError(f"LRP needs epsilon >= 0, got {self.epsilon}")

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return LRPMode(leaves, entries, create_graph, model, epsilon=self.epsilon, first_layer=self.first_layer)


# ---------------------------------------------------------------- rules


def epsilon_relu(mode: "LRPMode", call: Call):
    """y/(y+ε) in place of the derivative."""
    x = call.tensors[0]
    if not x.requires_grad:
        return call.run()
    return EpsilonReLU.apply(x, mode.epsilon, mode.backward, call.inplace)


def capped_relu(mode: "LRPMode", call: Call, positive: Backward | None = None):
    """A ReLU that ends at a number, as ReLU6: it hands its relevance on, as a ReLU does.

    Args:
        positive: of a method that has the z⁺ rule too, that of its backward passes by it.
    """
    low, high = ends_of(call)
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float)) and low == 0 < high):
        return no_rule(mode, call)
    x = call.tensors[0]
    if not x.requires_grad:
        return call.run()
    z = x.clone() if call.inplace else x
    out = EpsilonCappedReLU.apply(z, float(high), mode.epsilon, mode.backward, positive)
    return write(x, out) if call.inplace else out


def ends_of(call: Call) -> tuple:
    """Least and largest value of ReLU6, of a hardtanh, or of a clamp."""
    if call.name == "relu6":
        return 0, 6
    if call.name == "hardtanh":
        return call.given.get("min_val", -1), call.given.get("max_val", 1)
    high = call.given.get("max")
    return call.given.get("min"), math.inf if high is None else high


def weighted(mode: Mode, call: Call):
    """A layer whose weight is no activation."""
    if mode.is_active(call.given["weight"]) or _is(mode, call.given.get("bias")):
        raise UnsupportedOperation(
            f"{mode.title} has no rule for {call} with a weight that is made of the input; {ADVICE}"
        )
    return convolution(mode, call) if call.kind == "convolutions" else call.run()


def normalisation(mode: Mode, call: Call):
    """A batch norm whose numbers are no activations: an affine map, whichever statistics it takes."""
    if call.times > 1:
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} with numbers made of the input; {ADVICE}")
    return batch_norm(mode, call)


def one_activation(mode: Mode, call: Call):
    """A product in which one activation takes part, once."""
    if call.times > 1:
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} of two activations{mode.instead}")
    return call.run()


def dividend(mode: Mode, call: Call):
    """A quotient whose divisor is no activation."""
    if _is(mode, call.given.get("other")) or call.given.get("rounding_mode") is not None:
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} by an activation{mode.instead}")
    return call.run()


def sampled(mode: Mode, call: Call):
    """Linear in its input at places that are no activations."""
    if call.times > 1 or not _is(mode, call.given.get("input", call.tensors[0])):
        raise UnsupportedOperation(
            f"{mode.title} has no rule for {call} at places that are made of the input; {ADVICE}"
        )
    return call.run()


def reduced(mode: Mode, call: Call, rule: Callable = derivative):
    """Sums and means of what goes to one place, and the largest of it, keep their derivative."""
    how = call.given.get("reduce")
    if how not in ("sum", "mean", "amax"):
        raise UnsupportedOperation(
            f"{mode.title} has no rule for {call} by {how!r}: it knows sum, mean and amax; {ADVICE}"
        )
    return rule(mode, call)


def taken_out(mode: Mode, call: Call):
    """What happens to values outside of torch, or in a copy of their memory, nobody sees."""
    raise UnsupportedOperation(
        f"{mode.title} cannot follow {call}, which takes an activation out of torch's operations"
    )


def no_rule(mode: Mode, call: Call):
    """Raise, but for what makes no activation of activations, as comparisons: what they select is refused."""
    out = call.run()
    if any(t.requires_grad for t in tensors(out)):
        raise UnsupportedOperation(f"{mode.title} has no rule for {call}{mode.instead}")
    return out


def _is(mode: Mode, value) -> bool:
    return isinstance(value, Tensor) and mode.is_active(value)


LINEAR = dict.fromkeys(
    "linear_maps spectral_maps sums maxima dropouts detached templates queries reads".split(), derivative
) | dict.fromkeys("grid_sample grid_sampler roi_align ps_roi_align".split(), sampled)
TABLE = LINEAR | {
    "relus": epsilon_relu,
    **dict.fromkeys(CAPPED_RELUS, capped_relu),
    "normalisations": normalisation,
    "convolutions": weighted,
    "linear_layers": weighted,
    "products": one_activation,
    "quotients": dividend,
    **dict.fromkeys(("scatter_reduce", "index_reduce"), reduced),
    **dict.fromkeys(
        "numpy array array_wrap dlpack to_dlpack storage untyped_storage deepcopy reduce_ex".split(), taken_out
    ),
    None: no_rule,
}


class LRPMode(InputXGradientMode):
    """LRP-ε for ReLU networks as a modified backward pass (Faster ISNet's LRP-Flex).

    At a ReLU with output y the backward pass multiplies by y/(y+ε) in place of the derivative, and at one that ends at
    c, as ReLU6 does, of input z > 0 by min(z, c)/(z+ε). All other operations keep theirs, and R = gradient · activation
    then is LRP-ε at every layer that feeds a ReLU and LRP-0 elsewhere. The multiplier is a function of the activations,
    so the map can be differentiated. Operations that are neither ReLU nor linear raise `UnsupportedOperation`, and so
    does what selects by values of activations or scales by them, also by truth values, indices and detached values.

    A batch norm in training mode is an affine map to the rules: no relevance passes through the batch's
    statistics to other samples, but the map's own derivative knows them. (The authors' code lets it pass:
    half of a sample's relevance then lies on other samples.)
    """

    table, opens, sees_all, title = TABLE, True, True, "LRP"
    instead = (
        ": LRP-ε is defined for ReLU networks (ReLU, ReLU6, convolution, linear, batch norm, pooling, sums, products "
        "with constants); for transformers and networks with gates take AttnLRP; an operation of your own that is "
        "linear: "
        'attrain.register_rule(op, "linear")'
    )

    def __init__(self, *args, epsilon: float, first_layer: ZB | None = None):
        super().__init__(*args, through=False)
        self.epsilon = epsilon
        self.first = FirstLayer(first_layer, self.leaves, self.entries) if first_layer else None

    def answer(self, call, registered):
        with_graph = [t.requires_grad for t in call.active]
        if any(with_graph) and not all(with_graph) and call.kind != "queries":
            raise UnsupportedOperation(
                f"{self.title} has no rule for {call} with what has no derivative but is made of the input (a "
                f"comparison, an index, a detached value): it selects or scales by values of activations{self.instead}"
            )
        originals = [self.original(t) for t in call.tensors]  # as they are before a call in place
        out = super().answer(call, registered)
        if is_copy(call, out):
            out._attrain_copy = (self.token, self.original(call.active[0]), out._version)
        elif self.first is not None and any(t.requires_grad for t in tensors(out)):
            self.first.observe(call, out, originals)
        return out

    def original(self, value: Tensor) -> Tensor:
        """The tensor that a value is an unchanged copy of, or the value itself."""
        token, original, version = getattr(value, "_attrain_copy", (None, None, None))
        return original if token is self.token and value._version == version else value

    def roots(self):
        return super().roots() if self.first is None else [self.first.end()]

    def contract(self, number, gradient):
        if self.first is None:
            return super().contract(number, gradient)
        return self.first.redistribute(gradient, self.first.end(), self.create_graph)


class EpsilonReLU(Function):
    """ReLU; while explaining, its gradient is multiplied by y/(y+ε)."""

    @staticmethod
    def forward(ctx, x, epsilon, backward, inplace):
        y = x.relu_() if inplace else x.relu()
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        ctx.epsilon, ctx.rules = epsilon, backward
        return y

    @staticmethod
    def backward(ctx, g):
        if g is None or ctx.rules.ends:
            return None, None, None, None
        (y,) = ctx.saved_tensors
        if ctx.rules.explaining and ctx.epsilon > 0:
            return _EpsilonMultiplier.apply(g, y, ctx.epsilon), None, None, None
        return torch.ops.aten.threshold_backward(g, y, 0), None, None, None


class _EpsilonMultiplier(Function):
    """g · y/(y+ε)."""

    @staticmethod
    def forward(ctx, g, y, epsilon):
        ctx.save_for_backward(g, y)
        ctx.epsilon = epsilon
        total = y + epsilon
        return torch.div(y, total, out=total).mul_(g)

    @staticmethod
    def backward(ctx, h):
        g, y = ctx.saved_tensors
        total = y + ctx.epsilon
        share = h / total
        return share * y, (share * g).mul_(ctx.epsilon).div_(total), None


class EpsilonCappedReLU(Function):
    """min(max(z, 0), c); while explaining, its gradient is multiplied by min(z, c)/(z+ε) where z > 0; by z⁺, ε is 0."""

    @staticmethod
    def forward(ctx, z, cap, epsilon, backward, positive):
        ctx.save_for_backward(z)
        ctx.set_materialize_grads(False)
        ctx.cap, ctx.epsilon, ctx.rules, ctx.positive = cap, epsilon, backward, positive
        return z.clamp(0, cap)

    @staticmethod
    def backward(ctx, g):
        if g is None or ctx.rules.ends:
            return None, None, None, None, None
        (z,) = ctx.saved_tensors
        if ctx.rules.explaining or (ctx.positive is not None and ctx.positive.explaining):
            on, epsilon = torch.where(z > 0, z, 1), ctx.epsilon if ctx.rules.explaining else 0
            share = torch.where(z > 0, on.clamp(max=ctx.cap) / (on + epsilon), 0)
        else:
            share = (z > 0) & (z < ctx.cap)
        return g * share, None, None, None, None

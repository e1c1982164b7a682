"""LRP-ε of ReLU networks, differentiable: the rules, and the z^B rule of the first layer."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import resolve_name

from attrain.engine import unseen
from attrain.engine.fast.batchnorm import affine, batch_norm
from attrain.engine.fast.convolution import arguments, geometry_of, input_gradient
from attrain.engine.operations import (
    CONVOLUTIONS,
    ORDINARY,
    QUOTIENTS,
    UnsupportedOperation,
    along,
    canonical,
    differentiable,
    registered,
)
from attrain.engine.rules import InputXGradientRules


class LRPRules(InputXGradientRules):
    """LRP-ε for ReLU networks as a modified backward pass (Faster ISNet's LRP-Flex).

    At a ReLU with output y the backward pass multiplies by y/(y+ε) in place of the derivative; all
    other operations keep theirs, and R = gradient · activation then is LRP-ε at every layer that feeds
    a ReLU and LRP-0 elsewhere. The multiplier is a function of the activations, so the map can be
    differentiated. Operations that are neither ReLU nor linear raise `UnsupportedOperation`.

    A batch norm in training mode is an affine map to the rules: no relevance passes through the batch's
    statistics to other samples, but the map's own derivative knows them. (The authors' code lets it pass:
    half of a sample's relevance then lies on other samples.)
    """

    sees_all = True

    def __init__(self, x, entry, epsilon: float, first_layer=None):
        super().__init__(x, entry)
        self.epsilon = epsilon
        self.first = FirstLayer(first_layer) if first_layer else None

    def call(self, func, name, args, kwargs):
        if name == "batch_norm" and func is F.batch_norm:
            out = batch_norm(self.switch, False, *args, **kwargs)
        elif name in ("relu", "relu_"):
            out = _relu(args, kwargs, name == "relu_", self.epsilon, self.switch)
        else:
            out = super().call(func, name, args, kwargs)
            known = registered(func) == "linear" or canonical(func)[0] in ORDINARY
            if not known and differentiable(out) and not _is_scaling(func, args):
                raise UnsupportedOperation(
                    f"LRP has no rule for {resolve_name(func) or name}: LRP-ε is defined for ReLU networks "
                    "(ReLU, convolution, linear, batch norm, pooling, sums, products with constants); "
                    'an operation of your own that is linear: attrain.register_rule(op, "linear")'
                )
        if self.first is not None and differentiable(out):
            self.first.observe(self, func, name, args, kwargs, out)
            self.root = self.first.output
        return out

    def contract(self, gradient, create_graph):
        if self.first is None:
            return gradient * self.x.detach()
        return self.first.redistribute(gradient, self.root, self.x.detach(), create_graph)


class FirstLayer:
    """The z^B rule for a convolution or linear layer on the input, with a batch norm and a ReLU behind it.

    Pixels lie in [low, high], so a black pixel is evidence too: LRP-ε gives it x·g = 0 by construction,
    z^B does not. With R the relevance at the end of the chain, W⁺ and W⁻ the positive and negative
    parts of the weight (a batch norm folded in),

        z = conv(x; W, b) − low·(conv(1; W⁺) + b⁺) − high·(conv(1; W⁻) + b⁻),    s = R / (z + δ sign z)
        R_x = x·convᵀ(s; W) − low·convᵀ(s; W⁺) − high·convᵀ(s; W⁻)

    (Faster ISNet's code; zennit's ZBox clamps the bias in all three copies and so differs slightly).
    δ is the box's stabilizer. Biases and batch statistics are constants for the map's derivative.
    conv(x; W) is the layer's own output, scaled, and conv(1; ·) the same for all samples.
    """

    LAYERS = ("conv1d", "conv2d", "conv3d", "linear")

    def __init__(self, box):
        self.box = box
        self.output = None  # end of the chain layer → batch norm → ReLU, as far as it goes
        self.stage = self.terms = None

    def observe(self, rules, func, name, args, kwargs, out):
        """Follow the chain as the model runs."""
        if self.stage and args and args[0] is self.output and name != "relu_" and canonical(func)[1]:
            raise UnsupportedOperation(
                f"the z^B rule needs the first layer's output as it is, but {resolve_name(func) or name} changes it in "
                "place; use first_layer=None, or write the operation out of place"
            )
        if any(a is rules.entry for a in (*args, *kwargs.values())):
            if name not in self.LAYERS or self.stage is not None:
                raise UnsupportedOperation(
                    "the z^B rule needs the input to go into one convolution or linear layer and nowhere else, "
                    f"but it goes into {name}; use first_layer=None, or move preprocessing out of the model"
                )
            call = arguments(name, args, kwargs)
            self.geometry = geometry_of(name, call) if name in CONVOLUTIONS else None
            del call["input"]
            self.weight, self.bias = call.pop("weight"), call.pop("bias", None)
            self.constant = out.new_zeros(()) if self.bias is None else self.bias.detach()
            self.layer, self.groups, self.scale = partial(func, **call), call.get("groups", 1), None
            self.channel_dim = -1 if name == "linear" else 1
            self.first, self.version = out, out._version
            self.output, self.stage = out, "layer"
        elif self.stage == "layer" and func is F.batch_norm and args[0] is self.output:
            self.scale, mean, shift = affine(out, *args, **kwargs)
            self.constant = shift + self.scale.detach() * (self.constant - mean)
            self.output, self.stage = out, "batch_norm"
        elif self.stage in ("layer", "batch_norm") and name in ("relu", "relu_") and args[0] is self.output:
            self.output, self.stage = out, "relu"

    def redistribute(self, gradient: Tensor, relevant: Tensor, x: Tensor, create_graph: bool) -> Tensor:
        """The map at the input, of the relevance gradient · relevant at the end of the chain."""
        with torch.set_grad_enabled(bool(create_graph)):
            if self.terms is None:
                self.terms = self._terms(x)
            z, weights = self.terms
            share = (gradient * relevant / z).to(self.first.dtype)
            dim = self.channel_dim % x.ndim
            shape = [*x.shape[:dim], 2 * x.shape[dim], *x.shape[dim + 1 :]]
            parts = self._back(share, weights, shape, create_graph).unflatten(dim, (self.groups, 2, -1))
            by_weight, by_extremes = (part.flatten(dim, dim + 1) for part in parts.unbind(dim + 1))
            return x * by_weight - by_extremes

    def _terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z + δ sign z, and W beside low·W⁺ + high·W⁻: few channels cost as much as twice as many."""
        dim, ndim = self.channel_dim, self.first.ndim
        weight, bias, scale = self.weight, self.bias, self.scale
        y = self.first if self.first._version == self.version else self.layer(x, weight, bias)  # if a ReLU changed it
        if scale is not None:
            weight = (weight * scale.view(-1, *[1] * (weight.ndim - 1))).to(weight.dtype)
            bias, y = bias if bias is None else bias * scale, y * along(scale, dim, ndim)
        extremes = self._extremes(weight)
        offset = along(self.constant - self._extremes(self.constant), dim, ndim)
        offset = offset - self.layer(torch.ones_like(x[:1]), extremes)
        z = y + (offset if bias is None else offset - along(bias, dim, ndim))
        return z + torch.copysign(z.new_tensor(self.box.stabilizer), z.detach()), torch.cat([weight, extremes], 1)

    def _back(self, share: Tensor, weights: Tensor, shape: list[int], create_graph: bool) -> Tensor:
        if self.geometry is not None:
            return input_gradient(share, weights.to(share.dtype), shape, self.geometry)
        with torch.enable_grad():
            probe = share.new_zeros(shape, requires_grad=True)
            output = self.layer(probe, weights)
            return torch.autograd.grad(output, probe, share.to(output.dtype), create_graph=create_graph)[0]

    def _extremes(self, v: Tensor) -> Tensor:
        return self.box.low * v.clamp(min=0) + self.box.high * v.clamp(max=0)


class _EpsilonReLU(Function):
    @staticmethod
    def forward(ctx, x, epsilon, switch, inplace):
        y = x.relu_() if inplace else x.relu()
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        ctx.epsilon, ctx.switch = epsilon, switch
        return y

    @staticmethod
    def backward(ctx, g):
        if g is None:
            return None, None, None, None
        (y,) = ctx.saved_tensors
        if ctx.switch["explaining"] and ctx.epsilon > 0:
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


def _relu(args, kwargs, inplace, epsilon, switch):
    x, inplace = (*args, kwargs.get("inplace", inplace))[:2] if args else (kwargs["input"], inplace)
    return _EpsilonReLU.apply(x, epsilon, switch, inplace)


def _is_scaling(func, args: tuple) -> bool:
    """A product or quotient in which one activation at most takes part, and not as the divisor."""
    name, factors = canonical(func)[0], args[:2]
    active = [unseen.active(a) for a in factors]
    if name in QUOTIENTS:
        return len(active) == 2 and not active[1]
    return name in ("mul", "multiply", "matmul", "mm", "bmm") and not all(active)

"""Batch norm by the batch's statistics, with backward passes made to be differentiated.

y = γ(x − μ)/σ + β with μ and σ of the batch. torch differentiates the gradient of that by some thirty operations on
whole activations; here it is one fused backward pass of batch norm and four operations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from attrain.engine.call import by_batch
from attrain.engine.mode import Backward
from attrain.tensors import along

_forward, _backward = torch.native_batch_norm, torch.ops.aten.native_batch_norm_backward


def batch_norm(
    backward: Backward, through: bool, input, running_mean, running_var, weight=None, bias=None, training=False,
    momentum=0.1, eps=1e-5, cudnn_enabled=True,
) -> Tensor:  # fmt: skip
    """`F.batch_norm`; where it takes the batch's own statistics, with a rule for maps.

    Args:
        backward: while explaining, the map's rule holds.
        through: whether the map's gradient passes through μ and σ to the other samples, as the loss's does. If not,
            the map takes them as constants, and only the map's own derivative knows that σ depends on the batch.
        input, …, eps: as for `F.batch_norm`.
    """
    x = input
    if not by_batch(training, running_mean) or x.numel() <= x.shape[1]:  # one value for each channel: torch's own error
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    y, inverse, mean = _BatchNorm.apply(x, weight, bias, running_mean, running_var, momentum, eps, backward, through)
    y._attrain_statistics = mean, inverse
    return y


def affine(
    out, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, **_
) -> tuple[Tensor, Tensor, Tensor | float]:
    """What `batch_norm` that gave out does to a channel, scale · (x − mean) + shift; mean and shift are constants."""
    if by_batch(training, running_mean):
        mean, inverse = out._attrain_statistics[0], out._attrain_statistics[1].detach()
    else:
        mean, inverse = running_mean.detach().clone(), (running_var.detach() + eps).rsqrt()
    return inverse * (1 if weight is None else weight), mean, 0.0 if bias is None else bias.detach()


class _BatchNorm(Function):
    """The output, 1/σ, by which a map's derivative reaches the batch, and μ."""

    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps, backward, through):
        y, mean, inverse = _forward(x, weight, bias, running_mean, running_var, True, momentum, eps)
        # In another order than torch's own, whose values a checkpoint would take for these if their shapes agreed.
        ctx.save_for_backward(mean, inverse, x, weight)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mean)
        ctx.eps, ctx.rules, ctx.through = eps, backward, through
        return y, inverse, mean

    @staticmethod
    def backward(ctx, g, of_inverse, _):
        mean, inverse, x, weight = ctx.saved_tensors
        if ctx.rules.explaining:  # μ and σ are constants of a map, or part of the gradient through g alone
            if g is None:
                return (None,) * 9
            if ctx.through:
                return _InputGradient.apply(g, x, weight, mean.detach(), inverse.detach(), ctx.eps), *[None] * 8
            scale = inverse if weight is None else inverse * weight
            return g * along(scale, 1, x.ndim).to(g.dtype), *[None] * 8
        of_x = of_weight = of_bias = None
        if g is not None:
            wanted = ctx.needs_input_grad[:3]
            of_x, of_weight, of_bias = _backward(g, x, weight, None, None, mean, inverse, True, ctx.eps, wanted)
        if of_inverse is not None:
            factor = -of_inverse * inverse**3 * x.shape[1] / x.numel()
            direct = (x * along(factor, 1, x.ndim)).sub_(along(mean * factor, 1, x.ndim))
            of_x = direct if of_x is None else direct.add_(of_x)
        return of_x, of_weight, of_bias, *[None] * 6


class _InputGradient(Function):
    """γ/σ · P g, with P g = g − mean(g) − x̂ mean(g x̂) and x̂ = (x − μ)/σ; P is symmetric.

    With T = Σ h P g and sums over the m values of a channel, the derivative of Σ h γ/σ P g is γ/σ · P h by g, T/σ by γ,
    and by x

        γ/σ² · [d − g Σhx̂/m − h Σgx̂/m + x̂ (2 Σgx̂ Σhx̂/m² − T/m)],    d = (Σg Σhx̂ + Σh Σgx̂)/m².
    """

    @staticmethod
    def forward(ctx, g, x, weight, mean, inverse, eps):
        gamma = torch.ones_like(mean) if weight is None else weight
        of_x, *sums = _backward(g, x, gamma, None, None, mean, inverse, True, eps, [True] * 3)
        ctx.save_for_backward(g, x, gamma, mean, inverse, *sums)
        ctx.eps = eps
        return of_x

    @staticmethod
    @once_differentiable
    def backward(ctx, h):
        g, x, gamma, mean, inverse, gx, g_sum = ctx.saved_tensors
        of_g, hx, h_sum = _backward(h, x, gamma, None, None, mean, inverse, True, ctx.eps, [True] * 3)
        m, dims = x.numel() / x.shape[1], [d for d in range(x.ndim) if d != 1]
        of_x = h * g
        total = of_x.sum(dims, dtype=mean.dtype) - (h_sum * g_sum + hx * gx) / m
        scale = gamma * inverse**2 / m
        of_centred = scale * inverse * (2 * gx * hx / m - total)
        constant = scale * (g_sum * hx + h_sum * gx) / m - of_centred * mean
        factors = constant, -scale * hx, -scale * gx, of_centred
        constant, by_g, by_h, by_x = (along(factor, 1, x.ndim).to(x.dtype) for factor in factors)
        torch.mul(g, by_g, out=of_x).add_(h * by_h).add_(x * by_x).add_(constant)  # addcmul is slow on a CPU
        return of_g, of_x, total * inverse if ctx.needs_input_grad[2] else None, None, None, None

"""Derivatives of norms, GELU and softmax, and ReLU's secants, cheap to differentiate as training on a map does.

Torch writes these out in many passes over memory, or has none. `plain_…` beside each is the same in torch's operations,
which further derivatives take.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function

from attrain.tensors import finite


def gelu_multiplied(g: Tensor, x: Tensor) -> Tensor:
    """G · Φ(x): GELU's y/x as a factor."""
    return _GeluMultiplied.apply(g, x)


def plain_gelu_multiplied(g: Tensor, x: Tensor) -> Tensor:
    """The same in torch's operations."""
    return g * torch.special.ndtr(x)


class _GeluMultiplied(Function):
    @staticmethod
    def forward(ctx, g, x):
        share = torch.erf(x * 0.5**0.5).add_(1).mul_(0.5)  # torch.special.ndtr takes twice as long
        ctx.save_for_backward(g, x, share)
        return g * share

    @staticmethod
    def backward(ctx, h):
        g, x, share = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _plainly(plain_gelu_multiplied, g, x, h)
        density = x.square().mul_(-0.5).exp_().mul_((2 * torch.pi) ** -0.5)
        return h * share, density.mul_(g).mul_(h)


def norm_multiplied(g: Tensor, x: Tensor, rows: int, eps: float, centred: bool) -> Tensor:
    """G / σ(x), centred if the norm is: the derivative of a norm whose scale σ is a constant.

    Args:
        g, x: of the norm's output and its input, in the same shape.
        rows: how many parts of x have a σ of their own.
        eps: added to σ².
        centred: whether the norm takes the mean off, as a layer norm does and an RMS norm does not.
    """
    return _NormMultiplied.apply(g, x, rows, eps, centred)


def plain_norm_multiplied(g: Tensor, x: Tensor, rows: int, eps: float, centred: bool) -> Tensor:
    """The same in torch's operations."""
    flat, out = x.reshape(rows, -1), g.reshape(rows, -1)
    if centred:
        flat, out = (t - t.mean(1, keepdim=True) for t in (flat, out))
    return (out * (flat.square().mean(1, keepdim=True) + eps).rsqrt()).reshape(x.shape)


class _NormMultiplied(Function):
    @staticmethod
    def forward(ctx, g, x, rows, eps, centred):
        flat, out = x.reshape(rows, -1), g.reshape(rows, -1)
        if centred:
            flat, out = (t - t.mean(1, keepdim=True) for t in (flat, out))
        ctx.scale, ctx.settings = (flat.square().mean(1, keepdim=True) + eps).rsqrt(), (rows, eps, centred)
        out = out * ctx.scale
        ctx.save_for_backward(g, x, flat, out)
        return out.view(x.shape)

    @staticmethod
    def backward(ctx, h):
        g, x, flat, out = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_plainly(lambda g, x: plain_norm_multiplied(g, x, *ctx.settings), g, x, h), None, None, None
        h = h.reshape(out.shape)
        of_x = flat * ((h * out).sum(1, keepdim=True) * ctx.scale.square() / -out.shape[1])
        of_g = (h - h.mean(1, keepdim=True) if ctx.settings[2] else h) * ctx.scale
        return of_g.view(x.shape), of_x.view(x.shape), None, None, None


def softmax(x: Tensor, dim: int) -> Tensor:
    """`torch.softmax`, with a first derivative that is cheap to differentiate."""
    return _Softmax.apply(x, dim)


def plain_softmax_derivative(g: Tensor, y: Tensor, dim: int) -> Tensor:
    """y · (g − Σ g·y), the derivative of a softmax with the output y, in torch's operations."""
    return y * (g - (g * y).sum(dim, keepdim=True))


class _Softmax(Function):
    @staticmethod
    def forward(ctx, x, dim):
        y = torch.softmax(x, dim)
        ctx.save_for_backward(y)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx, g):
        return _SoftmaxDerivative.apply(g, ctx.saved_tensors[0], ctx.dim), None


class _SoftmaxDerivative(Function):
    @staticmethod
    def forward(ctx, g, y, dim):
        ctx.save_for_backward(g, y)
        ctx.dim = dim
        return torch._softmax_backward_data(g, y, dim, y.dtype)

    @staticmethod
    def backward(ctx, h):
        (g, y), dim = ctx.saved_tensors, ctx.dim
        if torch.is_grad_enabled():
            return *_plainly(lambda g, y: plain_softmax_derivative(g, y, dim), g, y, h), None
        return *softmax_second_derivative(g, y, dim, h), None


def softmax_second_derivative(g: Tensor, y: Tensor, dim: int, h: Tensor) -> tuple[Tensor, Tensor]:
    """What the gradient h of `plain_softmax_derivative` is at g and at y."""
    total, total_h = (torch.linalg.vecdot(t, y, dim=dim).unsqueeze(dim) for t in (g, h))
    of_y = (g - total).mul_(h).addcmul_(g, total_h, value=-1)
    return torch._softmax_backward_data(h, y, dim, y.dtype), of_y


def relu_secant(a: Tensor, b: Tensor) -> Tensor:
    """(ReLU(b) − ReLU(a)) / (b − a), and ReLU'(a) where a = b; a may have one row for all of b's."""
    return _ReLUSecant.apply(a, b)


def plain_relu_secant(a: Tensor, b: Tensor) -> Tensor:
    """The same in torch's operations."""
    d = b - a
    return torch.where(d == 0, (a > 0).to(d.dtype), (b.relu() - a.relu()) / d.masked_fill(d == 0, 1.0))


class _ReLUSecant(Function):
    """By b its derivative is (ReLU'(b) − s) / (b − a), by a the same of a with the other sign; none where a = b."""

    @staticmethod
    def forward(ctx, a, b):
        d = b - a
        s = (b.relu() - a.relu()).div_(d)
        if not finite(s):  # 0/0
            s = torch.where(d == 0, (a > 0).to(d.dtype), s)
        ctx.save_for_backward(a, b, s, d)
        return s

    @staticmethod
    def backward(ctx, h):
        a, b, s, d = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _plainly(plain_relu_secant, a, b, h)
        h = h / d
        h = h if finite(h) else h.masked_fill_(d == 0, 0.0)
        of_a = (s - (a > 0).to(s.dtype)).mul_(h).sum_to_size(a.shape) if ctx.needs_input_grad[0] else None
        of_b = ((b > 0).to(s.dtype) - s).mul_(h) if ctx.needs_input_grad[1] else None
        return of_a, of_b


def _plainly(plain: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """The derivatives by torch's own operations, which can be differentiated on."""
    a, b = (t if t.requires_grad else t.detach().requires_grad_() for t in (a, b))
    return torch.autograd.grad(plain(a, b), (a, b), h, create_graph=True)

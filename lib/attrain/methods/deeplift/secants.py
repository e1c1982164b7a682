"""Secants of functions of one variable, safe where the two points are close."""

from functools import partial

import torch

NEAR = 1e-7  # how far to the right of a kink its derivative from there is read


def secant_of(call, from_right=False):
    """A function (a, b, f(a), f(b)) -> (f(b) − f(a)) / (b − a), the derivative at a where the two are close.

    At a kink that is the derivative as torch has it, ReLU'(0) = 0, or the one from the right: the
    reference code takes RevealCancel's small parts as +1e-7.
    """
    if call.name == "relu":
        return partial(_relu_secant, from_right)
    if call.name == "exp":
        return lambda a, b, f_a, f_b: torch.maximum(a, b).exp() * phi(b - a)
    return partial(_secant, call.on, from_right)


def _relu_secant(from_right, a, b, f_a, f_b):
    d = b - a
    if not from_right:  # away from 0 the quotient of ReLU is exact, however small
        return ratio(f_b - f_a, d, lambda: (a > 0).to(d.dtype))
    near = d.abs() < NEAR
    return torch.where(near, (a >= 0).to(d.dtype), (f_b - f_a) / d.masked_fill(near, 1.0))


def ratio(change, d, at_zero):
    """change / d, and at_zero() where d and the change are 0; may write into the change."""
    if torch.is_grad_enabled():
        return torch.where(d == 0, at_zero(), change / d.masked_fill(d == 0, 1.0))
    found = change.div_(d)
    if d.device.type == "cpu" and not found.sum().isnan():  # no 0/0: the usual case, known for less than `where` costs
        return found
    return torch.where(d == 0, at_zero(), found)


def _secant(f, from_right, a, b, f_a, f_b):
    """The quotient; where its rounding is larger than what tells it from the slopes at both ends, their mean."""
    dtype, eps = f_b.dtype, torch.finfo(f_b.dtype).eps
    if dtype in (torch.float16, torch.bfloat16):
        a, b, f_a, f_b = (v.float() for v in (a, b, f_a, f_b))
    d = b - a
    slope_a, slope_b = _derivative(f, a + NEAR if from_right else a), _derivative(f, b)
    equal = d == 0
    size = d.abs().masked_fill(equal, 1.0)
    quotient = (f_b - f_a) / d.masked_fill(equal, 1.0)
    steepest = torch.maximum(slope_a.abs(), slope_b.abs())
    rounding = eps * (f_a.abs() + f_b.abs() + steepest * (a.abs() + b.abs())) / size
    mean = (slope_a + slope_b) / 2
    close = torch.maximum((slope_a - slope_b).abs(), (quotient - mean).abs()) <= rounding
    return torch.where(equal, slope_a, torch.where(close, mean, quotient)).to(dtype)


def _derivative(f, at):
    with torch.enable_grad():
        leaf = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(leaf).sum(), leaf)
    return slope.nan_to_num(0.0, 0.0, 0.0)


def phi(d):
    """(1 − exp(−|d|)) / |d|, 1 at 0; also where both of a difference are −∞."""
    d = d.abs().nan_to_num(0.0)
    return torch.where(d == 0, 1.0, -torch.expm1(-d) / torch.where(d == 0, 1.0, d))

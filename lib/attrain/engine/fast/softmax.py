"""A softmax whose derivative is cheap to differentiate: torch's own writes the second one out in nine passes."""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def softmax(x: Tensor, dim: int) -> Tensor:
    """`torch.softmax`, with the same numbers and first and second derivatives in less time; it has no third."""
    return _Softmax.apply(x, dim)


class _Softmax(Function):
    @staticmethod
    def forward(ctx, x, dim):
        y = torch.softmax(x, dim)
        ctx.save_for_backward(y)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx, g):
        return _Derivative.apply(g, ctx.saved_tensors[0], ctx.dim), None


class _Derivative(Function):
    """y · (g − Σ g·y)."""

    @staticmethod
    def forward(ctx, g, y, dim):
        ctx.save_for_backward(g, y)
        ctx.dim = dim
        return torch._softmax_backward_data(g, y, dim, y.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, h):
        (g, y), dim = ctx.saved_tensors, ctx.dim
        total, total_h = (torch.linalg.vecdot(t, y, dim=dim).unsqueeze(dim) for t in (g, h))
        of_y = (g - total).mul_(h).addcmul_(g, total_h, value=-1)
        return torch._softmax_backward_data(h, y, dim, y.dtype), of_y, None

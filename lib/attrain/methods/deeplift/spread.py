"""The spread |Δ⁺| + |Δ⁻| behind a linear layer: |Δ| @ |W|ᵀ."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

PART = 2**20  # numbers of W at a time, so that they stay in a cache: a copy of a large W costs more than the product


def absolute_linear(a: Tensor, weight: Tensor) -> Tensor:
    """a @ |W|ᵀ without a copy of W; not to be differentiated twice."""
    return _AbsoluteLinear.apply(a, weight)


def _parts(weight: Tensor):
    return (w.abs() for w in weight.detach().split(max(1, PART // weight.shape[1])))


class _AbsoluteLinear(Function):
    @staticmethod
    def forward(ctx, a, weight):
        ctx.weight = weight
        return torch.cat([F.linear(a, w) for w in _parts(weight)], -1)

    @staticmethod
    def backward(ctx, g):
        rows = max(1, PART // ctx.weight.shape[1])
        return sum(part @ w for part, w in zip(g.split(rows, -1), _parts(ctx.weight))), None
